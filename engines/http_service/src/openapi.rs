//! The OpenAPI document of a route table.
//!
//! Source: OpenAPI Specification 3.1.1; schemas are JSON Schema 2020-12, as `schemars` derives them from the types that the
//! service itself reads and writes.

use std::collections::BTreeSet;

use public_api::denial::ErrorBody;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::routes::{Access, Content, Documented, Query};

/// What the document says of the service.
#[derive(Clone, Debug)]
pub struct Info {
    /// Title.
    pub title: &'static str,
    /// For people.
    pub description: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// `servers`, as the document has them.
    pub servers: fn() -> Value,
}

/// An object about which nothing more is said.
pub fn any_object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object"})
}

/// The document.
pub(crate) fn document<'a>(info: &Info, operations: impl Iterator<Item = Documented<'a>>) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let error = schemas.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for documented in operations {
        let path = paths.entry(documented.path).or_insert_with(|| json!({}));
        path[documented.method.to_ascii_lowercase()] = operation(&documented, &error, &mut schemas);
    }
    json!({
        "openapi": "3.1.1",
        "info": {"title": info.title, "description": info.description, "version": info.version},
        "servers": (info.servers)(),
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

fn operation(documented: &Documented<'_>, error: &Schema, schemas: &mut SchemaGenerator) -> Value {
    let stated = documented.operation;
    let mut told = json!({
        "operationId": stated.id,
        "tags": [stated.tag],
        "summary": stated.summary,
        "responses": responses(documented, error, schemas),
    });
    let parameters: Vec<Value> =
        names_in(documented.path).map(path_parameter).chain(stated.queries.iter().map(query)).collect();
    if !parameters.is_empty() {
        told["parameters"] = Value::Array(parameters);
    }
    if !documented.also.is_empty() {
        told["x-casemate-also-at"] = json!(documented.also);
    }
    if let Some(request) = stated.request {
        told["requestBody"] = json!({"required": true, "content": content(request, schemas)});
    }
    match stated.access {
        Access::Open => {}
        Access::OpenUnless(role) => {
            told["security"] = json!([{}, {"bearer": []}]);
            told["x-casemate-role"] = json!(role);
        }
        Access::LoopbackOr(role) => {
            told["security"] = json!([{}, {"bearer": []}]);
            told["x-casemate-role"] = json!(role);
            told["description"] = json!("A caller on the service's own machine needs no token.");
        }
        Access::Role(role) => {
            told["security"] = json!([{"bearer": []}]);
            told["x-casemate-role"] = json!(role);
        }
    }
    told
}

fn responses(documented: &Documented<'_>, error: &Schema, schemas: &mut SchemaGenerator) -> Value {
    let stated = documented.operation;
    let mut responses = Map::new();
    for (status, answer) in &stated.answers {
        let mut told = json!({"description": description(*status)});
        if let Some(answer) = answer {
            told["content"] = content(*answer, schemas);
        }
        responses.insert(status.to_string(), told);
    }
    for status in errors(documented) {
        let mut told = json!({
            "description": description(status),
            "content": {"application/json": {"schema": error}},
        });
        if status == 429 || status == 503 {
            told["headers"] = json!({
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
            });
        }
        // What an operation answers itself, it states.
        responses.entry(status.to_string()).or_insert(told);
    }
    Value::Object(responses)
}

/// What it states, and what follows from its access, its body and the limits of every route.
fn errors(documented: &Documented<'_>) -> BTreeSet<u16> {
    let mut errors: BTreeSet<u16> = documented.operation.errors.iter().copied().collect();
    errors.extend([429, 500, 503]);
    if documented.access() != Access::Open {
        errors.extend([401, 403]);
    }
    if documented.takes_body() {
        errors.extend([408, 413]);
    }
    errors
}

fn content(content: Content, schemas: &mut SchemaGenerator) -> Value {
    let schema = (content.schema)(schemas);
    json!({content.media_type: {"schema": schema}})
}

fn names_in(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn query(query: &Query) -> Value {
    json!({
        "name": query.name, "in": "query", "required": query.required, "description": query.description,
        "schema": {"type": query.kind},
    })
}

fn description(status: u16) -> &'static str {
    match status {
        200 => "Done.",
        201 => "Made.",
        204 => "Done; there is nothing to show.",
        400 => "The request cannot be read, or what it shows is refused; `denial` says why.",
        401 => "A bearer token is missing or not good.",
        403 => "The caller lacks a role.",
        404 => "There is no such thing.",
        408 => "The body did not arrive in time.",
        409 => "What is there does not permit it.",
        413 => "The body is too long.",
        429 => "The caller makes too many requests.",
        503 => "Not now.",
        _ => "The service could not carry out the request.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Operation, Route, RouteTable};

    #[test]
    fn routes_of_one_path_and_paths_of_one_route_are_told() {
        let operation = |id| Operation::new(id, "Things", "Does it.");
        let table = RouteTable::<()>::new(vec![
            Route::get("/things/{name}", async || (), operation("show").answers::<String>().errors(&[404]))
                .also_at(&["/things/{name}/"]),
            Route::post_several(
                "/things/{name}",
                async || (),
                vec![
                    operation("start").at("/things/{name}:start").access(Access::Role("Operator")),
                    operation("stop").at("/things/{name}:stop").takes::<ErrorBody>().errors(&[400, 404]),
                ],
            ),
        ]);
        let info = Info { title: "T", description: "D", version: "1", servers: || json!([]) };
        let document = table.document(&info);
        let paths: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
        assert_eq!(paths, ["/things/{name}", "/things/{name}:start", "/things/{name}:stop"]);
        assert_eq!(
            document["paths"]["/things/{name}"]["get"]["x-casemate-also-at"],
            json!(["/things/{name}/"])
        );
        let start = &document["paths"]["/things/{name}:start"]["post"];
        assert_eq!(start["security"], json!([{"bearer": []}]));
        assert!(start["responses"]["401"].is_object() && start["responses"]["429"]["headers"].is_object());
        let stop = &document["paths"]["/things/{name}:stop"]["post"];
        let body = &stop["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(body, "#/components/schemas/ErrorBody");
        assert!(document["components"]["schemas"]["Denial"]["properties"]["remedy"].is_object());
        assert_eq!(stop["parameters"][0]["name"], "name");
    }
}

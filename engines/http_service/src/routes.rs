//! The routes of a service as data: the router and the OpenAPI document are made from the same table.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::gate::{Charge, Cost, Gate, GatedRoute, pass};
use crate::openapi::{self, Info};

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Anybody, or callers with this role where the service is set so.
    OpenUnless(&'static str),
    /// Callers with this role.
    Role(&'static str),
    /// Callers from this machine, and others with this role.
    LoopbackOr(&'static str),
}

/// What a body or an answer consists of.
#[derive(Clone, Copy)]
pub struct Content {
    /// Media type.
    pub media_type: &'static str,
    /// Its JSON Schema.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

impl Content {
    /// JSON of a type.
    pub fn json<T: JsonSchema>() -> Self {
        Self { media_type: "application/json", schema: SchemaGenerator::subschema_for::<T> }
    }

    /// A text of this media type.
    pub fn text(media_type: &'static str) -> Self {
        Self { media_type, schema: SchemaGenerator::subschema_for::<String> }
    }
}

/// A query parameter.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Name.
    pub name: &'static str,
    /// JSON type, `integer` or `string`.
    pub kind: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// For people.
    pub description: &'static str,
}

/// One operation, as the document tells it.
#[derive(Clone)]
pub struct Operation {
    pub(crate) path: Option<&'static str>,
    pub(crate) id: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) access: Access,
    pub(crate) queries: Vec<Query>,
    pub(crate) request: Option<Content>,
    pub(crate) answers: Vec<(u16, Option<Content>)>,
    pub(crate) errors: &'static [u16],
}

impl Operation {
    /// An operation that anybody may use, and that answers 200 without a body.
    pub fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            path: None,
            id,
            tag,
            summary,
            access: Access::Open,
            queries: Vec::new(),
            request: None,
            answers: Vec::new(),
            errors: &[],
        }
    }

    /// Its public path, where that is not the route's: one route may serve several.
    pub fn at(self, path: &'static str) -> Self {
        Self { path: Some(path), ..self }
    }

    /// Who may use it.
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// A query parameter.
    pub fn query(mut self, query: Query) -> Self {
        self.queries.push(query);
        self
    }

    /// Its body is JSON.
    pub fn takes<T: JsonSchema>(self) -> Self {
        self.takes_content(Content::json::<T>())
    }

    /// Its body.
    pub fn takes_content(self, content: Content) -> Self {
        Self { request: Some(content), ..self }
    }

    /// It answers 200 and JSON.
    pub fn answers<T: JsonSchema>(self) -> Self {
        self.answers_with(200, Some(Content::json::<T>()))
    }

    /// It answers this status.
    pub fn answers_with(mut self, status: u16, content: Option<Content>) -> Self {
        self.answers.push((status, content));
        self
    }

    /// Statuses of its refusals, beside those that follow from access, body and limits.
    pub fn errors(self, errors: &'static [u16]) -> Self {
        Self { errors, ..self }
    }
}

/// A method, a path, and what serves it.
pub struct Route<S> {
    method: &'static str,
    path: &'static str,
    also: &'static [&'static str],
    cost: Cost,
    max_body: Option<usize>,
    handler: MethodRouter<S>,
    pub(crate) operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    /// `GET`.
    pub fn get<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self::new("GET", path, on(MethodFilter::GET, handler), vec![operation])
    }

    /// `PUT`.
    pub fn put<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self::new("PUT", path, on(MethodFilter::PUT, handler), vec![operation])
    }

    /// `POST`.
    pub fn post<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self::new("POST", path, on(MethodFilter::POST, handler), vec![operation])
    }

    /// `PATCH`.
    pub fn patch<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H, operation: Operation) -> Self {
        Self::new("PATCH", path, on(MethodFilter::PATCH, handler), vec![operation])
    }

    /// `DELETE`.
    pub fn delete<H: Handler<T, S>, T: 'static>(
        path: &'static str,
        handler: H,
        operation: Operation,
    ) -> Self {
        Self::new("DELETE", path, on(MethodFilter::DELETE, handler), vec![operation])
    }

    /// `POST` to a path whose last segment names what is to be done, so that it serves several operations.
    pub fn post_several<H: Handler<T, S>, T: 'static>(
        path: &'static str,
        handler: H,
        operations: Vec<Operation>,
    ) -> Self {
        Self::new("POST", path, on(MethodFilter::POST, handler), operations)
    }

    fn new(
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<S>,
        operations: Vec<Operation>,
    ) -> Self {
        Self { method, path, also: &[], cost: Cost::Usual, max_body: None, handler, operations }
    }

    /// Further spellings of its path, which mean the same: they are limited and counted as the first, and the document
    /// names them beside it.
    pub fn also_at(self, paths: &'static [&'static str]) -> Self {
        Self { also: paths, ..self }
    }

    /// What a request of it costs.
    pub fn cost(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    /// Its longest body, where that is not the service's.
    pub fn max_body(self, bytes: usize) -> Self {
        Self { max_body: Some(bytes), ..self }
    }

    /// Whoever needs an identity for all operations is charged by it.
    fn charge(&self) -> Charge {
        let open = |operation: &Operation| matches!(operation.access, Access::Open | Access::OpenUnless(_));
        if self.operations.iter().any(open) { Charge::Address } else { Charge::Identity }
    }

    fn mount(self, router: Router<S>, gate: &Arc<Gate>) -> Router<S> {
        let max_body = self.max_body.unwrap_or(gate.limits().max_body_bytes);
        let gated = GatedRoute::new(gate, (self.method, self.path), (self.cost, self.charge()), max_body);
        let handler = self.handler.route_layer(DefaultBodyLimit::max(max_body));
        let handler = handler.route_layer(from_fn_with_state(gated, pass));
        let paths = std::iter::once(&self.path).chain(self.also);
        paths.fold(router, |router, path| router.route(&matched(path), handler.clone()))
    }
}

/// One operation with the method and the path of its route.
#[derive(Clone, Copy)]
pub struct Documented<'a> {
    /// Upper case.
    pub method: &'static str,
    /// As the document shows it.
    pub path: &'static str,
    /// Further spellings of it.
    pub also: &'static [&'static str],
    pub(crate) operation: &'a Operation,
}

impl Documented<'_> {
    /// Its id.
    pub fn id(&self) -> &'static str {
        self.operation.id
    }

    /// Who may use it.
    pub fn access(&self) -> Access {
        self.operation.access
    }

    /// Whether it has a body.
    pub fn takes_body(&self) -> bool {
        self.operation.request.is_some()
    }

    /// Whether it states every refusal that its form makes possible: 400 where there is a body or a query to read, 404
    /// where the path names something.
    pub fn states_its_errors(&self) -> bool {
        let reads = self.operation.request.is_some() || !self.operation.queries.is_empty();
        let names = self.path.contains('{');
        let states = |status| self.operation.errors.contains(&status);
        (!reads || states(400)) && (!names || states(404))
    }
}

/// The same, for a document that is made when it is first asked for.
struct Stated {
    method: &'static str,
    path: &'static str,
    also: &'static [&'static str],
    operation: Operation,
}

impl Stated {
    fn documented(&self) -> Documented<'_> {
        Documented { method: self.method, path: self.path, also: self.also, operation: &self.operation }
    }
}

/// All routes of a service.
pub struct RouteTable<S> {
    routes: Vec<Route<S>>,
}

impl<S: Clone + Send + Sync + 'static> RouteTable<S> {
    /// A table of these.
    pub fn new(routes: Vec<Route<S>>) -> Self {
        Self { routes }
    }

    /// Adds `GET /openapi.json`, the document of all routes, itself among them.
    pub fn with_document(mut self, info: &'static Info) -> Self {
        const PATH: &str = "/openapi.json";
        let operation = Operation::new("getOpenApiDocument", "Service", "This document.")
            .answers_with(200, Some(Content { media_type: "application/json", schema: openapi::any_object }));
        let mut stated: Vec<Stated> = self.stated().collect();
        stated.push(Stated { method: "GET", path: PATH, also: &[], operation: operation.clone() });
        let text = LazyLock::new(move || {
            let document = openapi::document(info, stated.iter().map(Stated::documented));
            document.to_string()
        });
        let text = Arc::new(text);
        let handler = async move || ([(CONTENT_TYPE, "application/json")], (**text).clone());
        self.routes.push(Route::get(PATH, handler, operation));
        self
    }

    fn stated(&self) -> impl Iterator<Item = Stated> {
        let own = |documented: Documented<'_>| Stated {
            method: documented.method,
            path: documented.path,
            also: documented.also,
            operation: documented.operation.clone(),
        };
        self.operations().map(own)
    }

    /// Every operation.
    pub fn operations(&self) -> impl Iterator<Item = Documented<'_>> {
        self.routes.iter().flat_map(|route| {
            let documented = move |operation| Documented {
                method: route.method,
                path: Operation::path_of(operation, route.path),
                also: route.also,
                operation,
            };
            route.operations.iter().map(documented)
        })
    }

    /// The OpenAPI document, version 3.1.
    pub fn document(&self, info: &Info) -> serde_json::Value {
        openapi::document(info, self.operations())
    }

    /// The router. Literal parts of paths are lowered: a service that matches without regard to case lowers requests, too.
    pub fn into_router<H, T, M, U>(self, gate: &Arc<Gate>, no_path: H, no_method: M) -> Router<S>
    where
        H: Handler<T, S>,
        T: 'static,
        M: Handler<U, S>,
        U: 'static,
    {
        let unmatched = GatedRoute::new(
            gate,
            ("any", "unmatched"),
            (Cost::Usual, Charge::Address),
            gate.limits().max_body_bytes,
        );
        let layer = || from_fn_with_state(Arc::clone(&unmatched), pass);
        let mounted = self.routes.into_iter().fold(Router::new(), |router, route| route.mount(router, gate));
        mounted
            .fallback(<H as Handler<T, S>>::layer(no_path, layer()))
            .method_not_allowed_fallback(<M as Handler<U, S>>::layer(no_method, layer()))
    }
}

impl Operation {
    fn path_of(&self, route: &'static str) -> &'static str {
        self.path.unwrap_or(route)
    }
}

/// The path with its literal parts in lower case.
fn matched(path: &str) -> String {
    let mut in_name = false;
    let lower = |letter: char| {
        in_name = (in_name || letter == '{') && letter != '}';
        if in_name { letter } else { letter.to_ascii_lowercase() }
    };
    path.chars().map(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_parts_are_lowered_and_names_kept() {
        assert_eq!(matched("/attest/SevSnpVm"), "/attest/sevsnpvm");
        assert_eq!(matched("/Policies/{attestationType}/Versions"), "/policies/{attestationType}/versions");
    }

    #[tokio::test]
    async fn every_spelling_of_a_path_is_served_and_counted_as_one() {
        let metrics = crate::Metrics::new("test", "1");
        let config = crate::GateConfig { limits: crate::Limits::default(), request_id: None, adopt: None };
        let gate = Gate::new(config, Arc::clone(&metrics));
        let operation = Operation::new("use", "tag", "summary");
        let route = Route::post("/things/{name}/{version}/use", async || "used", operation)
            .also_at(&["/things/{name}/use", "/things/{name}//use"]);
        let none = async || axum::http::StatusCode::NOT_FOUND;
        let router = RouteTable::<()>::new(vec![route]).into_router(&gate, none, none);
        for path in ["/things/a/1/use", "/things/a/use", "/things/a//use"] {
            let request = axum::http::Request::post(path).body(axum::body::Body::empty()).expect("a request");
            let answer = tower::ServiceExt::oneshot(router.clone(), request).await.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
        }
        let series = r#"casemate_http_requests_total{method="POST",route="/things/{name}/{version}/use",status="200"} 3"#;
        assert!(metrics.render().contains(series), "{}", metrics.render());
    }

    #[test]
    fn an_operation_without_its_errors_is_found() {
        let states = |path: &'static str, operation: Operation| {
            let table = RouteTable::<()>::new(vec![Route::get(path, async || (), operation)]);
            table.operations().all(|documented| documented.states_its_errors())
        };
        let operation = || Operation::new("id", "tag", "summary");
        assert!(states("/a", operation()));
        assert!(!states("/a/{b}", operation()));
        assert!(states("/a/{b}", operation().errors(&[404])));
        assert!(!states("/a", operation().takes::<String>()));
        assert!(states("/a", operation().takes::<String>().errors(&[400])));
    }
}

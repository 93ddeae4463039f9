//! Virtual machines.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::names::{self, Place, VM};
use crate::app::power::{self, PowerAction};
use crate::app::refusal::{Kind, Refusal};
use crate::app::views::{self, Hosts};
use crate::app::vms;
use crate::store::VmRow;

const TYPE: &str = "Microsoft.Compute/virtualMachines";

/// `PUT`: 201 for a new one, 200 for a change; both to be followed.
pub async fn put(app: App, call: Call) -> Result<Response, Refusal> {
    let place = call.place("vm");
    let put = vms::put(&app, &place, &call.body).await?;
    let view = view(&app, &find(&app, &place).await?, false).await?;
    Ok(reply::follow(&app, &call, &put.begun, reply::written(&view, put.created)))
}

/// `GET`, with `$expand=instanceView` if asked.
pub async fn get(app: App, call: Call) -> Result<Response, Refusal> {
    let expand = call.query("$expand").is_some_and(|what| what.eq_ignore_ascii_case("instanceView"));
    let vm = find(&app, &call.place("vm")).await?;
    Ok(reply::ok(&view(&app, &vm, expand).await?))
}

/// `PATCH`: labels.
pub async fn patch(app: App, call: Call) -> Result<Response, Refusal> {
    let place = call.place("vm");
    let begun = vms::patch(&app, &place, &call.body).await?;
    let view = view(&app, &find(&app, &place).await?, false).await?;
    Ok(reply::follow(&app, &call, &begun, reply::ok(&view)))
}

/// `DELETE`: 202, or 204 if there is none.
pub async fn delete(app: App, call: Call) -> Result<Response, Refusal> {
    let force = call.query("forceDeletion").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    match vms::delete(&app, &call.place("vm"), force).await? {
        Some(begun) => Ok(reply::accepted(&app, &call, &begun)),
        None => Ok(reply::empty(StatusCode::NO_CONTENT)),
    }
}

/// List of a group.
pub async fn list_group(app: App, call: Call) -> Result<Response, Refusal> {
    let key = names::group_key(call.parameter("sub"), call.parameter("group"));
    if app.store.resource(&key).await?.is_none() {
        return Err(Refusal::no_group(call.parameter("group")));
    }
    list(&app, |vm| vm.resource.group_key == key).await
}

/// List of a subscription.
pub async fn list_all(app: App, call: Call) -> Result<Response, Refusal> {
    let subscription = call.parameter("sub").to_ascii_lowercase();
    list(&app, |vm| vm.resource.subscription == subscription).await
}

async fn list(app: &App, wanted: impl Fn(&VmRow) -> bool) -> Result<Response, Refusal> {
    let hosts = Hosts::read(app).await?;
    let vms = app.store.vms().await?;
    Ok(reply::list(vms.iter().filter(|vm| wanted(vm)).map(|vm| views::vm(vm, &hosts, false)).collect()))
}

/// `GET .../instanceView`.
pub async fn instance_view(app: App, call: Call) -> Result<Response, Refusal> {
    let vm = find(&app, &call.place("vm")).await?;
    let hosts = Hosts::read(&app).await?;
    Ok(reply::ok(&views::instance_view(&vm, &hosts)))
}

/// `GET .../attestationEvidence`: the newest evidence bundle, to be verified by whoever wants to.
pub async fn evidence(app: App, call: Call) -> Result<Response, Refusal> {
    let vm = find(&app, &call.place("vm")).await?;
    let bundle = vm.evidence.as_deref().map(serde_json::from_str::<Value>);
    match bundle {
        Some(Ok(bundle)) => Ok(reply::ok(&bundle)),
        Some(Err(error)) => {
            let message = format!("The host reported evidence that is not JSON: {error}.");
            Err(Refusal::new(Kind::NotFound, "EvidenceUnreadable", message))
        }
        None => {
            let message = format!("The VM '{}' has not attested yet.", vm.resource.name);
            Err(Refusal::new(Kind::NotFound, "EvidenceNotFound", message))
        }
    }
}

/// `POST .../start`.
pub async fn start(app: App, call: Call) -> Result<Response, Refusal> {
    act(app, call, PowerAction::Start).await
}

/// `POST .../restart`.
pub async fn restart(app: App, call: Call) -> Result<Response, Refusal> {
    act(app, call, PowerAction::Restart).await
}

/// `POST .../powerOff`.
pub async fn power_off(app: App, call: Call) -> Result<Response, Refusal> {
    act(app, call, PowerAction::PowerOff).await
}

/// `POST .../deallocate`.
pub async fn deallocate(app: App, call: Call) -> Result<Response, Refusal> {
    act(app, call, PowerAction::Deallocate).await
}

async fn act(app: App, call: Call, action: PowerAction) -> Result<Response, Refusal> {
    let begun = power::act(&app, &call.place("vm"), action).await?;
    Ok(reply::accepted(&app, &call, &begun))
}

/// The VM of a path.
pub async fn find(app: &App, place: &Place) -> Result<VmRow, Refusal> {
    app.store.vm(&place.key(VM)).await?.ok_or_else(|| Refusal::not_found(TYPE, &place.name, &place.group))
}

async fn view(app: &App, vm: &VmRow, expand: bool) -> Result<Value, Refusal> {
    let mut view = views::vm(vm, &Hosts::read(app).await?, expand);
    view["etag"] = json!(format!("\"{}\"", vm.resource.generation));
    Ok(view)
}

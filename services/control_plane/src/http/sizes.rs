//! Sizes, SKUs, usages.

use std::collections::BTreeSet;

use axum::response::Response;
use serde_json::{Value, json};

use super::{App, Call, reply};
use crate::app::refusal::Refusal;
use crate::app::sizes;

/// `GET .../vmSizes`.
pub async fn vm_sizes(_app: App, _call: Call) -> Result<Response, Refusal> {
    Ok(reply::list(sizes::all().iter().map(sizes::size_row).collect()))
}

/// `GET .../skus`, with `$filter=location eq 'x'` if asked.
pub async fn skus(app: App, call: Call) -> Result<Response, Refusal> {
    let region = &app.config.region;
    let elsewhere =
        call.query("$filter").and_then(location_of).is_some_and(|name| !name.eq_ignore_ascii_case(region));
    let sizes = if elsewhere { &[] } else { sizes::all() };
    Ok(reply::list(sizes.iter().map(|size| sizes::sku_row(size, region)).collect()))
}

/// The `x` of `location eq 'x'`.
fn location_of(filter: &str) -> Option<&str> {
    let (name, value) = filter.split_once(" eq ")?;
    let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    name.trim().eq_ignore_ascii_case("location").then_some(value)
}

/// `GET .../usages`: cores by family. The limit is what the hosts have; there is no other quota.
pub async fn usages(app: App, call: Call) -> Result<Response, Refusal> {
    let subscription = call.parameter("sub").to_ascii_lowercase();
    let limit: u32 = app.store.hosts().await?.iter().map(|host| host.capacity.vcpus).sum();
    let vms = app.store.vms().await?;
    let mine: Vec<_> = vms.iter().filter(|vm| vm.resource.subscription == subscription).collect();
    let usage = |name: &str, text: &str, value: u32| -> Value {
        let name = json!({"value": name, "localizedValue": text});
        json!({"unit": "Count", "currentValue": value, "limit": limit, "name": name})
    };
    let mut rows = vec![usage("cores", "Total Regional vCPUs", mine.iter().map(|vm| vm.facts.vcpus).sum())];
    let families: BTreeSet<&str> = sizes::all().iter().map(|size| size.family).collect();
    for family in families {
        let of_family = |name: &str| sizes::by_name(name).is_some_and(|size| size.family == family);
        let used = mine.iter().filter(|vm| of_family(&vm.facts.size)).map(|vm| vm.facts.vcpus).sum();
        rows.push(usage(family, &format!("{family} vCPUs"), used));
    }
    Ok(reply::list(rows))
}

//! Resource Manager as a client: requests, and operations followed to their end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use public_api::client::Connection;
use reqwest::Method;
use serde_json::Value;

use crate::printer::Progress;

/// API version that this client sends.
const API_VERSION: &str = "2025-11-01";

/// A signed-in connection to one subscription.
#[derive(Debug)]
pub struct Arm {
    connection: Connection,
    subscription: String,
}

impl Arm {
    /// Resource Manager over `connection`.
    pub fn new(connection: Connection, subscription: &str) -> Self {
        Self { connection, subscription: subscription.to_owned() }
    }

    /// Path of a resource group.
    pub fn group(&self, group: &str) -> String {
        format!("/subscriptions/{}/resourceGroups/{group}", self.subscription)
    }

    /// Path of a VM.
    pub fn vm(&self, group: &str, name: &str) -> String {
        format!("{}/providers/Microsoft.Compute/virtualMachines/{name}", self.group(group))
    }

    /// Path of a provider's collection in the whole subscription.
    pub fn all(&self, kind: &str) -> String {
        format!("/subscriptions/{}/providers/{kind}", self.subscription)
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.connection.get(&versioned(path)).await?)
    }

    /// All items of a collection.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let answer = self.get(path).await?;
        Ok(answer["value"].as_array().cloned().unwrap_or_default())
    }

    /// `PUT`, `POST` or `DELETE`; returns the URL to poll if the work goes on.
    pub async fn begin(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Option<String>> {
        let response = self.connection.send(method, &versioned(path), body).await?;
        let url = response.headers().get("azure-asyncoperation");
        Ok(url.and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// Follows an operation to its end. `detail` is asked, at each poll, what is being done.
    pub async fn finish(
        &self,
        operation: Option<String>,
        vm: Option<&str>,
        progress: &mut Progress,
    ) -> Result<()> {
        let Some(url) = operation else { return Ok(()) };
        loop {
            let status: Value = self.connection.get(&url).await?;
            match status["status"].as_str().context("the operation has no status")? {
                "Succeeded" => return Ok(()),
                "Failed" | "Canceled" => {
                    let error = &status["error"];
                    bail!("{}: {}", text(&error["code"]), text(&error["message"]));
                }
                _ => {}
            }
            if let Some(vm) = vm {
                self.show_detail(vm, progress).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What the host says about a VM; silent if it cannot be read just now.
    async fn show_detail(&self, vm: &str, progress: &mut Progress) {
        if let Ok(answer) = self.get(vm).await
            && let Some(detail) = answer["properties"]["casemate"]["detail"].as_str()
            && !detail.is_empty()
        {
            progress.show(detail);
        }
    }
}

fn versioned(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}api-version={API_VERSION}")
}

/// A JSON string's text, or the JSON itself.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

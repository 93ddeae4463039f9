//! Resource Manager as a client: requests, and operations followed to their end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use public_api::client::{ClientError, Connection};
use reqwest::Method;
use serde_json::{Value, json};

use crate::printer::Progress;

/// API version that this client sends.
const API_VERSION: &str = "2025-11-01";

/// How long a control plane that does not answer is asked for an operation's end: it may be starting again, and the operation
/// goes on in any case.
const PATIENCE: Duration = Duration::from_secs(60);

/// An operation ended without success.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct OperationFailed {
    code: String,
    message: String,
}

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

    /// Path of an attestation provider.
    pub fn attestation_provider(&self, group: &str, name: &str) -> String {
        format!("{}/providers/Microsoft.Attestation/attestationProviders/{name}", self.group(group))
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

    /// `PUT` that is answered at once.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let response = self.connection.send(Method::PUT, &versioned(path), Some(body)).await?;
        response.json().await.context("reading the answer")
    }

    /// Makes a resource group if it does not exist.
    pub async fn ensure_group(&self, group: &str, location: &str) -> Result<()> {
        self.put(&self.group(group), &json!({"location": location})).await.map(drop)
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
            let status = self.patiently(&url).await?;
            match status["status"].as_str().context("the operation has no status")? {
                "Succeeded" => return Ok(()),
                "Failed" | "Canceled" => {
                    let error = &status["error"];
                    let (code, message) = (text(&error["code"]), text(&error["message"]));
                    return Err(OperationFailed { code, message }.into());
                }
                _ => {}
            }
            if let Some(vm) = vm {
                self.show_detail(vm, progress).await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// `GET` of an operation, again while nobody answers.
    async fn patiently(&self, url: &str) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.connection.get(url).await {
                Err(ClientError::Transport { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                answer => return Ok(answer?),
            }
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

//! What every HTTP service of ours does around its routes, so that a handler is about its resource alone.
//!
//! A service states its routes once, as data ([`routes::RouteTable`]); the router and the OpenAPI document are both made
//! from the table. Each request then passes the [`gate`]:
//!
//! ```text
//! request ─► trace context, span ─► slot free? ─no─► 503
//!                                     │yes
//!                                     ▼
//!                                   caller within the rate? ─no─► 429 with Retry-After
//!                                     │yes
//!                                     ▼
//!                                   handler, its body under a deadline ─► counted, logged, named by a request id
//! ```
//!
//! What it is not: it verifies no token and knows no resource. A route that needs a role is charged to its caller when the
//! service has verified who that is ([`gate::Admission::identified`]).

pub mod body;
pub mod gate;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod openapi;
pub mod peer;
pub mod rate;
pub mod routes;
pub mod server;
pub mod trace;

pub use gate::{Admission, Gate, GateConfig};
pub use limits::Limits;
pub use metrics::Metrics;
pub use routes::{Access, Operation, Route, RouteTable};

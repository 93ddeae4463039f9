//! Integration tests of the paravisor, one file a feature.

#[path = "suite/ak_certificate.rs"]
mod ak_certificate;
#[path = "suite/attacks.rs"]
mod attacks;
#[path = "suite/change_key.rs"]
mod change_key;
#[path = "suite/flow.rs"]
mod flow;
#[path = "suite/guest_port.rs"]
mod guest_port;
#[path = "suite/initramfs.rs"]
mod initramfs;
#[path = "suite/inspect.rs"]
mod inspect;
#[path = "suite/lab/mod.rs"]
mod lab;
#[path = "suite/nbd.rs"]
mod nbd;
#[path = "suite/recovery.rs"]
mod recovery;
#[path = "suite/stack.rs"]
mod stack;
#[path = "suite/support.rs"]
mod support;
#[path = "suite/tpm_front.rs"]
mod tpm_front;
#[path = "suite/tpm_server.rs"]
mod tpm_server;

//! Runs Gateways: makes the pods of each, keeps them as its author wants them, and reports how it
//! is.
//!
//! A Gateway has a ServiceAccount, a Deployment and a Service, all named `<gateway>-weft`, in its
//! own namespace. `objects` says how they look, `compare` what differs, `apply` writes them and
//! never touches one that was not made for the Gateway, `status` says what is written into the
//! Gateway and its class.
//! [`Reconciler`] goes from one Gateway to the next: it reads what is there, compares, writes. It
//! reads again every few seconds instead of watching: what was changed behind its back is put right
//! then, and no right to list is needed.
//!
//! What a Gateway serves is compiled in `model` and sent to its pods as to all proxies. Nothing
//! here knows a certificate or a key.
//!
//! Only where the chart value `gateway.enabled` is set, in the namespaces that it names, and by the
//! Lease holder alone.
//!
//! May import `apiserver`, `latest_model`, `metrics`, `observe`, `settings` and `status`.

mod apply;
mod class;
mod compare;
mod ending;
mod gateway;
mod objects;
mod parameters;
mod programmed;
mod reconciler;
mod status;

pub(crate) use self::reconciler::Reconciler;

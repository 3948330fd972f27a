//! Fixed names of what Weft adds to pods, and of the objects that its parts share.
//!
//! They are a promise as the labels are: running pods and clusters have them.

/// Init container that redirects the pod's traffic.
pub const CAPTURE_CONTAINER: &str = "weft-capture";
/// Native sidecar that carries the pod's traffic.
pub const PROXY_CONTAINER: &str = "weft-proxy";
/// Volume with the proxy's service-account token.
pub(crate) const TOKEN_VOLUME: &str = "weft-token";
/// Volume with the roots that the proxy trusts, and the ConfigMap it shows.
pub const TRUST_BUNDLE: &str = "weft-trust-bundle";
/// Empty volume that stands where a container would find the token of the pod's own
/// service account. The API server leaves a container alone that has something there.
pub(crate) const NO_API_TOKEN_VOLUME: &str = "weft-no-api-token";
/// Where that is.
pub(crate) const API_TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The volumes that belong to the proxy.
pub(crate) const VOLUMES: [&str; 3] = [TOKEN_VOLUME, TRUST_BUNDLE, NO_API_TOKEN_VOLUME];
/// The processors that releases are built for, as Kubernetes labels nodes. Images of which no more
/// is known are for the first.
pub(crate) const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// Key of the PEM list in [`TRUST_BUNDLE`].
pub const TRUST_BUNDLE_KEY: &str = "ca.crt";
/// Key in [`TRUST_BUNDLE`] that is `true` while the mesh is being uninstalled.
pub const TRUST_BUNDLE_LEAVING: &str = "leaving";
/// Life of the proxy's token in seconds; the kubelet renews it.
pub const TOKEN_SECONDS: i64 = 3600;

/// Secret with the mesh's certificate authority.
pub const CA_SECRET: &str = "weft-ca";
/// Secret with the webhooks' certificate authority.
pub const INJECTOR_CA_SECRET: &str = "weft-injector-ca";
/// ValidatingWebhookConfiguration.
pub const VALIDATOR: &str = "weft-validator";

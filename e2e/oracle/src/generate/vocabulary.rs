//! The names that random objects use.

/// What random objects may talk about.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary {
    /// Namespaces. Most objects are in the first.
    pub namespaces: &'static [&'static str],
    /// Service accounts.
    pub accounts: &'static [&'static str],
    /// Numbers of ports, of containers and of Services.
    pub ports: &'static [u16],
    /// Services that splits may name; some need not exist.
    pub services: &'static [&'static str],
    /// Whether to make mistakes that the API server or the webhook would refuse.
    pub mistakes: bool,
}

/// What [`World::random`] uses.
pub const SHOP: Vocabulary = Vocabulary {
    namespaces: &["shop", "bank"],
    accounts: &["api", "web", "default"],
    ports: &[8080, 9090, 80, 5432],
    services: &["api", "v1", "v2", "outer", "gone"],
    mistakes: true,
};

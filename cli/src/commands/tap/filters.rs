//! The filters and limits of a tap, for `weft tap` and for `weft top --paths`.

use clap::Args;
use form_urlencoded::Serializer;

use crate::cluster::names::{Named, ResourceKind, counted_kinds};
use crate::failure::Failure;

/// Kinds with requests that can be watched, and that can be at the other end.
pub(crate) const ENDS: &[ResourceKind] = counted_kinds!(ServiceAccount);
/// Requests that are shown in a second: what proxies are known to bear beside their work.
const RATE: u32 = 100;

/// What narrows a tap.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filters {
    /// Only calls to this KIND/NAME
    #[arg(long, value_name = "RES")]
    to: Vec<String>,
    /// Only calls from this KIND/NAME
    #[arg(long, value_name = "RES")]
    from: Vec<String>,
    /// Only requests of this method
    #[arg(long)]
    method: Option<String>,
    /// Only paths that begin so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only calls to the pods that this route describes, as `weft routes` names it
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only answers such as 503, 5xx or 500-504
    #[arg(long)]
    status: Option<String>,
    /// Only what took at least as long, such as 200ms
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    slower: Option<String>,
    /// Requests in a second over all pods, 1 to 1000; at least one of each pod is shown
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = RATE,
        value_parser = clap::value_parser!(u32).range(1..=1_000),
        allow_negative_numbers = true
    )]
    max_rps: u32,
}

impl Default for Filters {
    /// All requests, as many as are shown by default.
    fn default() -> Self {
        Self {
            to: Vec::new(),
            from: Vec::new(),
            method: None,
            path: None,
            route: None,
            status: None,
            slower: None,
            max_rps: RATE,
        }
    }
}

impl Filters {
    /// Parameters of the tap of an object.
    ///
    /// # Errors
    /// When what is named at an end is none.
    pub(crate) fn query(&self, of: &str) -> Result<Serializer<'static, String>, Failure> {
        let mut query = Serializer::new(String::new());
        query.append_pair("watch", "true");
        query.append_pair("of", &end(of)?);
        for (name, ends) in [("to", &self.to), ("from", &self.from)] {
            for text in ends {
                query.append_pair(name, &end(text)?);
            }
        }
        let filters = [
            ("method", &self.method),
            ("path", &self.path),
            ("route", &self.route),
            ("status", &self.status),
            ("slower", &self.slower),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.append_pair("maxRps", &self.max_rps.to_string());
        Ok(query)
    }

    /// The warning about a method that no request has.
    #[must_use]
    pub(crate) fn caution(&self) -> Option<String> {
        let unusual = crds::smi::validation::unusual_method(self.method.as_deref()?)?;
        Some(format!("--method {unusual}"))
    }

    /// All named objects: those whose requests are watched, and those at the other ends.
    ///
    /// # Errors
    /// When a name is invalid.
    pub(crate) fn names(&self, of: &str) -> Result<Vec<Named>, Failure> {
        let ends = self.to.iter().chain(&self.from).map(String::as_str);
        let all = std::iter::once(of).chain(ends);
        all.map(|text| Named::read(text, ENDS)).collect()
    }
}

/// What was typed, as the API names it.
fn end(text: &str) -> Result<String, Failure> {
    let (named, name) = Named::read_one(text, ENDS)?;
    let named = named.without_port(text, "requests are reported for all ports")?;
    Ok(format!("{}/{name}", named.kind))
}

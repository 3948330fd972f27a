//! What a scrape reads: the page of a registry, and what its library cannot write there.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// See the module header.
pub struct Scraped {
    registry: Arc<Mutex<Registry>>,
    finish: Option<Box<Finish>>,
}

type Finish = dyn Fn(String) -> String + Send + Sync;

impl From<Arc<Mutex<Registry>>> for Scraped {
    fn from(registry: Arc<Mutex<Registry>>) -> Self {
        Self {
            registry,
            finish: None,
        }
    }
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraped").finish_non_exhaustive()
    }
}

impl Scraped {
    /// The same, with every page finished by `finish`.
    #[must_use]
    pub fn finished(self, finish: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        Self {
            finish: Some(Box::new(finish)),
            ..self
        }
    }

    /// The page as it is now.
    pub(super) fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry.lock())?;
        Ok(match &self.finish {
            Some(finish) => finish(page),
            None => page,
        })
    }
}

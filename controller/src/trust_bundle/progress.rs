//! Tracks how far the copies of the trust bundle are: a new root may sign once all namespaces have
//! it.

use std::sync::Arc;

use tokio::time::Instant;

/// Of one holder of the Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The copies have not been looked at.
    #[default]
    Unknown,
    /// These namespaces have no copy with the newest roots.
    Behind(Vec<String>),
    /// All have one.
    Complete {
        /// PEM.
        roots: Arc<str>,
        since: Instant,
    },
}

impl Progress {
    /// Follows what is there. True if that is news.
    pub(super) fn update(&mut self, behind: Vec<String>, roots: &Arc<str>) -> bool {
        let now = match self {
            // A new namespace gets its copy at once, and no time begins anew.
            Self::Complete { roots: known, .. } if behind.is_empty() && *known == *roots => {
                return false;
            }
            _ if behind.is_empty() => Self::Complete {
                roots: Arc::clone(roots),
                since: Instant::now(),
            },
            _ => Self::Behind(behind),
        };
        let is_news = *self != now;
        *self = now;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_complete_since_last_namespace_has_the_roots() {
        let (former, roots): (Arc<str>, Arc<str>) = ("former".into(), "roots".into());
        let mut progress = Progress::default();
        assert!(progress.update(vec!["shop".to_owned()], &roots));
        assert_eq!(progress, Progress::Behind(vec!["shop".to_owned()]));
        assert!(progress.update(Vec::new(), &former));
        let before = progress.clone();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!progress.update(Vec::new(), &former), "the same");
        assert_eq!(progress, before);
        assert!(progress.update(Vec::new(), &roots));
        let since = Instant::now();
        assert_eq!(progress, Progress::Complete { roots, since });
    }
}

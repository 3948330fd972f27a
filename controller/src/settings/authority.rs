//! Settings of the certificate authority: where its root comes from, how long it lasts, and how
//! long kubelets take to show a changed trust bundle.

use std::path::PathBuf;
use std::time::Duration;

use runtime::env::EnvReader;

const HOUR: Duration = Duration::from_secs(3600);
/// A root has to outlive its issuers and leaves by far.
const ROOT_LIFE: std::ops::RangeInclusive<Duration> =
    HOUR.saturating_mul(24)..=HOUR.saturating_mul(175_320);
/// A kubelet shows a changed ConfigMap within 90 s.
const SETTLE: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=HOUR;

/// See the module header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthoritySettings {
    /// Life of roots that are made.
    pub(crate) root_life: Duration,
    /// After the last trust bundle was written.
    pub(crate) settle: Duration,
    pub(crate) source: IssuerSource,
    /// The folder that may hold an issuer of this replica's own, whatever the source is: one that the
    /// mesh leaves is needed until the next one signs.
    pub(crate) directory: Option<Directory>,
}

/// A mounted folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    /// ConfigMap and key of the roots; none: they stand in the folder.
    pub(crate) roots: Option<(String, String)>,
}

/// What brings the issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IssuerSource {
    /// The holder of the Lease makes it, and its root.
    Generated,
    /// A Secret of the release's namespace.
    Secret {
        name: String,
        /// ConfigMap and key of the roots; none: they stand in the Secret.
        roots: Option<(String, String)>,
    },
    /// The folder of each replica.
    Files,
}

impl Default for AuthoritySettings {
    fn default() -> Self {
        Self {
            root_life: identity::authority::ROOT_LIFE,
            settle: Duration::from_secs(120),
            source: IssuerSource::Generated,
            directory: None,
        }
    }
}

pub(super) fn read(env: &mut EnvReader) -> AuthoritySettings {
    let root_life = env.duration("WEFT_ROOT_LIFE", AuthoritySettings::default().root_life);
    if !ROOT_LIFE.contains(&root_life) {
        env.mistake("WEFT_ROOT_LIFE", "must lie between 24h and 175320h");
    }
    let settle = env.duration("WEFT_ROTATION_SETTLE", AuthoritySettings::default().settle);
    if !SETTLE.contains(&settle) {
        env.mistake("WEFT_ROTATION_SETTLE", "must lie between 10s and 1h");
    }
    let kind: String = env.or("WEFT_ISSUER_SOURCE", "generated".to_owned());
    let name: String = env.or("WEFT_ISSUER_SECRET", String::new());
    let roots: String = env.or("WEFT_ISSUER_ROOTS", String::new());
    let key: String = env.or("WEFT_ISSUER_ROOTS_KEY", "ca.crt".to_owned());
    let roots = (!roots.is_empty()).then_some((roots, key));
    let directory: String = env.or("WEFT_ISSUER_DIRECTORY", String::new());
    let path = PathBuf::from(directory);
    if !path.as_os_str().is_empty() && !path.is_absolute() {
        env.mistake("WEFT_ISSUER_DIRECTORY", "must be an absolute path");
    }
    let source = match kind.as_str() {
        "generated" => IssuerSource::Generated,
        "secret" => {
            if name.is_empty() || name == crds::objects::CA_SECRET {
                let why = "must name the Secret of the issuer, which is another one than weft-ca";
                env.mistake("WEFT_ISSUER_SECRET", why);
            }
            let roots = roots.clone();
            IssuerSource::Secret { name, roots }
        }
        "files" => {
            if path.as_os_str().is_empty() {
                env.mistake(
                    "WEFT_ISSUER_DIRECTORY",
                    "must name the folder of the issuer",
                );
            }
            IssuerSource::Files
        }
        _ => {
            env.mistake("WEFT_ISSUER_SOURCE", "must be generated, secret or files");
            IssuerSource::Generated
        }
    };
    AuthoritySettings {
        root_life,
        settle,
        source,
        directory: (!path.as_os_str().is_empty()).then_some(Directory { path, roots }),
    }
}

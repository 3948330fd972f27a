//! `weft token`: generates a secret by which requests may choose another Service.
//!
//! Claims: observe-65

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use crds::weft::OverrideToken;
use k8s_openapi::jiff::Timestamp;
use policy::overrides::Proof;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::output::{self, NARROW, number};

/// A policy's times are in whole seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// Arguments of `weft token`.
#[derive(Args, Debug)]
#[command(
    about = "Make a token for the overrides of a TrafficPolicy",
    long_about = "Makes a secret of 256 random bits and shows it once: as the header that a request \
                  sends beside weft-route, and as the entry of overrides[].tokens of a \
                  TrafficPolicy, which holds only its hash. No cluster is queried, and nothing is kept.",
    after_help = "Example:\n  weft token --expires 30d"
)]
pub(crate) struct Token {
    /// How long the token is valid
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = number::at_least(SHORTEST), allow_hyphen_values = true)]
    expires: Duration,
}

/// A new token, and its entry for a TrafficPolicy.
#[derive(Serialize)]
struct Made {
    token: String,
    entry: OverrideToken,
}

impl Token {
    /// Prints a token.
    ///
    /// # Errors
    /// When the lifetime is below a second, or ends later than a timestamp can hold.
    pub(crate) fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let format = global.format(NARROW)?;
        let made = self.make(rand::random(), SystemTime::now())?;
        if output::data(console, format, &made)? {
            return Ok(Conclusion::Yes);
        }
        let OverrideToken { sha256, expires } = &made.entry;
        console.line(&format!("weft-route-token: {}", made.token))?;
        console.line(&format!("- {{sha256: {sha256}, expires: \"{expires}\"}}"))?;
        Ok(Conclusion::Yes)
    }

    fn make(&self, random: [u8; 32], now: SystemTime) -> Result<Made, Failure> {
        if self.expires < SHORTEST {
            return Err(Failure::usage("--expires must be 1s or more"));
        }
        let ends = now
            .checked_add(self.expires)
            .and_then(|ends| ends.duration_since(SystemTime::UNIX_EPOCH).ok())
            .and_then(|ends| i64::try_from(ends.as_secs()).ok())
            .and_then(|ends| Timestamp::from_second(ends).ok())
            .ok_or_else(|| Failure::usage("--expires is longer than a time can be written"))?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let hash = Sha256::digest(token.as_bytes()).into();
        Ok(Made {
            token,
            entry: OverrideToken {
                sha256: Proof::Token(hash).write(),
                expires: ends.to_string(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::console::Streams;

    /// Output, or why there is none.
    fn ran(line: &str) -> Result<String, Failure> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Token(command) = cli.command else {
            panic!("{line}");
        };
        let mut streams = Streams::default();
        let mut console = streams.console();
        command.run(&cli.global, &mut console)?;
        let (out, err) = streams.texts();
        assert_eq!(err, "");
        Ok(out)
    }

    #[test]
    fn token_is_random_with_hashed_expiring_entry() {
        let make = |random, lasts| {
            let command = Token {
                expires: Duration::from_secs(lasts),
            };
            // 2026-11-02T09:00:00.5Z
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_793_610_000_500);
            command.make(random, now)
        };
        let made = make([0xff; 32], 30 * 86_400).unwrap();
        assert_eq!(made.token, format!("{}8", "_".repeat(42)));
        assert_eq!(made.entry.expires, "2026-12-02T09:00:00Z");
        let hash: [u8; 32] = Sha256::digest(made.token.as_bytes()).into();
        assert_eq!(policy::overrides::sha256(&made.entry.sha256), Some(hash));
        for (lasts, word) in [(0, "1s or more"), (u64::MAX, "longer than")] {
            let why = make([0; 32], lasts).err().unwrap().to_string();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn printed_token_header_and_entry_are_usable_and_unique() {
        let (one, other) = (ran("weft token").unwrap(), ran("weft token").unwrap());
        assert_ne!(one, other);
        let (header, entry) = one.split_once('\n').unwrap();
        let token = header.strip_prefix("weft-route-token: ").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(token).unwrap().len(), 32);
        let entry: Vec<OverrideToken> = serde_yaml_ng::from_str(entry).unwrap();
        assert!(!entry[0].sha256.contains(token) && entry[0].expires.ends_with('Z'));
        let json = ran("weft token --expires 1h -o json").unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["token"].as_str().unwrap().len(), 43);
        assert_eq!(json["entry"]["sha256"].as_str().unwrap().len(), 64);
        assert!(ran("weft token -o wide").is_err());
    }
}

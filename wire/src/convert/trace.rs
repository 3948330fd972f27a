//! Converts the settings of tracing.

use policy::share::Share;
use policy::trace::{Format, MOST_PER_SECOND, Tracing};

use super::error::BadResource;
use crate::v1;

impl From<&Tracing> for v1::Tracing {
    /// Without what spans say of their workload.
    fn from(tracing: &Tracing) -> Self {
        Self {
            collector: tracing.collector.as_str().to_owned(),
            share: tracing.share.millionths(),
            inject: tracing.inject.iter().map(Format::to_string).collect(),
            most_per_second: tracing.most_per_second,
            paths: tracing.paths,
            resource: Vec::new(),
        }
    }
}

impl TryFrom<&v1::Tracing> for Tracing {
    type Error = BadResource;

    fn try_from(message: &v1::Tracing) -> Result<Self, BadResource> {
        let collector = message.collector.parse();
        let share = Share::of_millionths(message.share)
            .ok_or_else(|| BadResource::new("share", "is more than all"))?;
        if !MOST_PER_SECOND.contains(&message.most_per_second) {
            let reason = format_args!("{} is not from 1 to 10000", message.most_per_second);
            return Err(BadResource::new("most_per_second", reason));
        }
        // A format that a newer controller knows is left out.
        let inject = message.inject.iter();
        let mut inject: Vec<Format> = inject.filter_map(|name| name.parse().ok()).collect();
        inject.sort_unstable();
        inject.dedup();
        if inject.is_empty() {
            let reason = "names no format that this version knows";
            return Err(BadResource::new("inject", reason));
        }
        Ok(Self {
            collector: collector.map_err(|bad| BadResource::new("collector", bad))?,
            share,
            inject,
            most_per_second: message.most_per_second,
            paths: message.paths,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracing() -> Tracing {
        Tracing {
            collector: "http://collector.observability:4317".parse().unwrap(),
            share: Share::ONE_PERCENT,
            inject: vec![Format::TraceContext, Format::B3Multi],
            most_per_second: 100,
            paths: true,
        }
    }

    #[test]
    fn tracing_settings_survive_a_round_trip() {
        let message = v1::Tracing::from(&tracing());
        assert_eq!(Tracing::try_from(&message), Ok(tracing()));
        // What a newer controller knows besides is left out.
        let newer = v1::Tracing {
            inject: ["jaeger", "b3multi", "tracecontext", "b3multi"]
                .map(str::to_owned)
                .into(),
            ..message
        };
        assert_eq!(Tracing::try_from(&newer), Ok(tracing()));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_field() {
        let good = || v1::Tracing::from(&tracing());
        for (bad, field) in [
            (
                v1::Tracing {
                    collector: "https://c:4317".to_owned(),
                    ..good()
                },
                "collector",
            ),
            (
                v1::Tracing {
                    share: 1_000_001,
                    ..good()
                },
                "share",
            ),
            (
                v1::Tracing {
                    inject: vec!["jaeger".to_owned()],
                    ..good()
                },
                "inject",
            ),
            (
                v1::Tracing {
                    most_per_second: 0,
                    ..good()
                },
                "most_per_second",
            ),
            (
                v1::Tracing {
                    most_per_second: u32::MAX,
                    ..good()
                },
                "most_per_second",
            ),
        ] {
            assert_eq!(Tracing::try_from(&bad).unwrap_err().field, field);
        }
    }
}

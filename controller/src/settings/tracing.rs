//! Settings of tracing, read from the environment.

use policy::share::Share;
use policy::trace::{Collector, Format, MOST_PER_SECOND, Tracing};
use runtime::env::EnvReader;

const RATE: &str = "WEFT_TRACING_MAX_SPANS_PER_SECOND";

/// `None` where there is no endpoint, or where something is wrong, which the reader notes.
pub(super) fn read(env: &mut EnvReader) -> Option<Tracing> {
    let endpoint = env.or("WEFT_TRACING_ENDPOINT", String::new());
    let share = env.or("WEFT_TRACING_SAMPLING", Share::ONE_PERCENT);
    let mut inject: Vec<Format> = env.list("WEFT_TRACING_INJECT");
    let most_per_second = env.or(RATE, 100);
    let paths = env.or("WEFT_TRACING_PATHS", true);
    if !MOST_PER_SECOND.contains(&most_per_second) {
        env.mistake(RATE, "must lie between 1 and 10000");
    }
    inject.sort_unstable();
    inject.dedup();
    if inject.is_empty() {
        inject.push(Format::TraceContext);
    }
    if endpoint.is_empty() {
        return None;
    }
    let collector = endpoint.parse::<Collector>();
    let collector = collector.map_err(|bad| env.mistake("WEFT_TRACING_ENDPOINT", bad.to_string()));
    Some(Tracing {
        collector: collector.ok()?,
        share,
        inject,
        most_per_second,
        paths,
    })
}

#[cfg(test)]
mod tests {
    use runtime::env::{BadEnv, EnvReader};

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Tracing>, BadEnv> {
        let mut env = EnvReader::from_map(variables.iter().copied());
        let tracing = read(&mut env);
        env.finish().map(|()| tracing)
    }

    #[test]
    fn without_an_endpoint_nothing_is_recorded() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("WEFT_TRACING_ENDPOINT", "")]).unwrap(), None);
        let tracing = of(&[("WEFT_TRACING_ENDPOINT", "http://collector:4317")]);
        let tracing = tracing.unwrap().unwrap();
        assert_eq!(tracing.share, Share::ONE_PERCENT);
        assert_eq!(tracing.inject, [Format::TraceContext]);
        assert_eq!((tracing.most_per_second, tracing.paths), (100, true));
    }

    #[test]
    fn every_mistake_is_named() {
        for (variable, value) in [
            ("WEFT_TRACING_ENDPOINT", "https://collector:4317"),
            ("WEFT_TRACING_SAMPLING", "101"),
            ("WEFT_TRACING_INJECT", "b3,jaeger"),
            (RATE, "0"),
            ("WEFT_TRACING_PATHS", "maybe"),
        ] {
            let error = of(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
    }
}

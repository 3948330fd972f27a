//! The steps of the proxy's own start, and how long each took.
//!
//! A step is reached once, the first time: what fails and is tried again counts in the step
//! that failed. A step lasts from the latest of the steps before it, so that all of them
//! together are the time from the program's first line until the pod may be ready, also
//! where two of them go on at a time.
//!
//! What comes before the program is the kubelet's, and so is the time until it looks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::time::Instant;

/// What the proxy has done. The order is that in which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupStep {
    /// Settings, trust bundle and probes are read, and the admin port is open.
    Settings,
    /// The listeners are open.
    Listeners,
    /// A controller is connected to, for a certificate.
    Connection,
    /// The certificate is issued and verified.
    Certificate,
    /// The stream of configuration is open: a controller knows the pod.
    Stream,
    /// The first configuration is applied.
    Configuration,
    /// `/ready` answers 200.
    Ready,
}

/// The moments at which the steps were reached. Clones are the same start.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    moments: Arc<Mutex<Moments>>,
}

#[derive(Debug)]
struct Moments {
    began: Instant,
    reached: [Option<Instant>; StartupStep::ALL.len()],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

impl StartupStep {
    pub const ALL: [Self; 7] = [
        Self::Settings,
        Self::Listeners,
        Self::Connection,
        Self::Certificate,
        Self::Stream,
        Self::Configuration,
        Self::Ready,
    ];

    /// As metrics and the admin port name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Listeners => "listeners",
            Self::Connection => "connection",
            Self::Certificate => "certificate",
            Self::Stream => "stream",
            Self::Configuration => "configuration",
            Self::Ready => "ready",
        }
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            reached: [None; StartupStep::ALL.len()],
        }
    }
}

impl Startup {
    /// The start began then, and not when this was made.
    pub(crate) fn began_at(&self, began: Instant) {
        self.moments.lock().began = began;
    }

    /// Notes that a step is reached now. Nothing where it was before, or the start is over.
    pub fn reached(&self, step: StartupStep) {
        let mut moments = self.moments.lock();
        if moments.reached[StartupStep::Ready as usize].is_none() {
            moments.reached[step as usize].get_or_insert_with(Instant::now);
        }
    }

    /// The steps that were reached, with what each took.
    #[must_use]
    pub fn steps(&self) -> Vec<(StartupStep, Duration)> {
        let moments = self.moments.lock();
        let mut since = moments.began;
        let mut steps = Vec::new();
        for step in StartupStep::ALL {
            if let Some(at) = moments.reached[step as usize] {
                steps.push((step, at.saturating_duration_since(since)));
                since = since.max(at);
            }
        }
        steps
    }

    /// Writes them down, in one line.
    pub(crate) fn log(&self) {
        let steps = self.steps();
        let total: Duration = steps.iter().map(|(_, took)| *took).sum();
        let of = |step: StartupStep| {
            let found = steps.iter().find(|(one, _)| *one == step);
            found.map(|(_, took)| milliseconds(*took))
        };
        tracing::info!(
            settings_ms = of(StartupStep::Settings),
            listeners_ms = of(StartupStep::Listeners),
            connection_ms = of(StartupStep::Connection),
            certificate_ms = of(StartupStep::Certificate),
            stream_ms = of(StartupStep::Stream),
            configuration_ms = of(StartupStep::Configuration),
            ready_ms = of(StartupStep::Ready),
            total_ms = milliseconds(total),
            "the proxy is ready"
        );
    }
}

/// Whole ones, as a page or a line shows them.
pub(crate) fn milliseconds(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

impl Collector for Startup {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let steps = self.steps();
        if steps.is_empty() {
            return Ok(());
        }
        let mut family = encoder.encode_descriptor(
            "weft_startup",
            "What each step of the proxy's start took",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (step, took) in steps {
            let labels = StepLabels { step: step.name() };
            let gauge = ConstGauge::new(took.as_secs_f64());
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tokio::time::advance;

    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[tokio::test(start_paused = true)]
    async fn steps_of_a_start_add_up_to_the_whole() {
        let began = Instant::now();
        advance(ms(2)).await;
        let startup = Startup::default();
        startup.began_at(began);
        for (step, after) in [
            (StartupStep::Settings, 3),
            (StartupStep::Connection, 20),
            // On the other thread, and late.
            (StartupStep::Listeners, 1),
            (StartupStep::Certificate, 30),
            // It was lost and made again.
            (StartupStep::Connection, 9),
            (StartupStep::Stream, 11),
            (StartupStep::Configuration, 5),
            (StartupStep::Ready, 1),
            (StartupStep::Stream, 60_000),
        ] {
            advance(ms(after)).await;
            startup.reached(step);
        }
        let steps = startup.steps();
        let names: Vec<StartupStep> = steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(names, StartupStep::ALL);
        let took: Vec<Duration> = steps.iter().map(|(_, took)| *took).collect();
        assert_eq!(took, [5, 21, 0, 30, 20, 5, 1].map(ms));
        let whole: Duration = took.iter().sum();
        assert_eq!(whole, ms(2 + 3 + 20 + 1 + 30 + 9 + 11 + 5 + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn start_without_a_controller_shows_the_steps_it_had() {
        let startup = Startup::default();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(startup.clone()));
        let page = || {
            let mut page = String::new();
            encode(&mut page, &registry).unwrap();
            page
        };
        assert!(!page().contains("startup"), "{}", page());
        advance(ms(250)).await;
        startup.reached(StartupStep::Settings);
        advance(ms(500)).await;
        startup.reached(StartupStep::Ready);
        for line in [
            "weft_startup_seconds{step=\"settings\"} 0.25",
            "weft_startup_seconds{step=\"ready\"} 0.5",
        ] {
            assert!(page().lines().any(|one| one == line), "{}", page());
        }
        assert!(!page().contains("certificate"), "{}", page());
    }
}

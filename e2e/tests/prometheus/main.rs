//! Tests with a real Prometheus and helm: the chart's rules load, its alerts fire and stay
//! quiet, every query of a dashboard has a result, and every value renders as documented. Run
//! by `e2e/run prometheus`: needs helm and promtool, and no cluster.

mod alerts;
mod chart;
mod dashboards;
mod programs;
mod scraping;
#[path = "../monitoring/sources.rs"]
mod sources;
mod values;

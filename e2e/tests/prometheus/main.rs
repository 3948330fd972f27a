//! A real Prometheus takes the chart's rules, its alerts fire and stay quiet, every query
//! of a dashboard has an answer, and helm makes of each value what it says. Run by
//! `e2e/run prometheus`: needs helm and promtool, and no cluster.

mod alerts;
mod chart;
mod dashboards;
mod programs;
mod scraping;
#[path = "../monitoring/sources.rs"]
mod sources;
mod values;

//! Failures on demand, by themselves and over HTTP.

use std::net::SocketAddr;

use super::*;
use crate::echo::{
    client::{Ask, Client},
    serve::Bound,
    settings::Settings,
};

fn failed(fault: &Fault, path: &str, now: Instant) -> usize {
    (0..100).filter(|_| fault.of(path, now).is_some()).count()
}

#[test]
fn fault_fails_given_percentage_on_given_path_and_duration() {
    let (fault, now) = (Fault::default(), Instant::now());
    assert_eq!(failed(&fault, "/products", now), 0);
    let order = br#"{"percent": 30, "only": "/products", "for": "15s"}"#;
    fault.set(order, now).unwrap();
    assert_eq!(failed(&fault, "/products/7", now), 30);
    assert_eq!(failed(&fault, "/", now), 0, "probes go on to succeed");
    let later = now + Duration::from_secs(15);
    assert_eq!(failed(&fault, "/products", later), 0);
    fault.set(br#"{"percent": 100}"#, now).unwrap();
    assert_eq!(failed(&fault, "/products", now), 100);
    fault.set(br#"{"percent": 0}"#, now).unwrap();
    assert_eq!(failed(&fault, "/products", now), 0);
}

#[test]
fn a_delay_alone_answers_well_and_late() {
    let (fault, now) = (Fault::default(), Instant::now());
    fault.set(br#"{"delay": "200ms"}"#, now).unwrap();
    let late = Wrong {
        status: None,
        delay: Duration::from_millis(200),
    };
    assert_eq!(fault.of("/", now), Some(late));
    fault.set(b"{}", now).unwrap();
    let refused = fault.of("/", now).unwrap();
    assert_eq!(refused.status, Some(StatusCode::SERVICE_UNAVAILABLE));
}

#[test]
fn what_is_misspelt_or_impossible_is_refused() {
    let (fault, now) = (Fault::default(), Instant::now());
    for order in [
        "",
        r#"{"precent": 1}"#,
        r#"{"percent": 101}"#,
        r#"{"status": 42}"#,
    ] {
        assert!(fault.set(order.as_bytes(), now).is_err(), "{order}");
    }
    assert_eq!(fault.of("/", now), None);
}

async fn status(http: SocketAddr, path: &str, fault: Option<&'static str>) -> u16 {
    let mut ask = Ask::get(&format!("http://{http}{path}")).unwrap();
    if let Some(fault) = fault {
        ask.method = http::Method::POST;
        ask.body = fault.into();
    }
    Client::new(ask).send().await.unwrap().status.as_u16()
}

#[tokio::test]
async fn http_port_applies_fault_while_probes_succeed() {
    let bound = Bound::bind(Settings::on_free_ports()).await.unwrap();
    let http = bound.addresses().unwrap()[0];
    tokio::spawn(bound.serve(std::future::pending()));
    assert_eq!(status(http, "/products", None).await, 200);
    let fault = r#"{"only": "/products", "for": "1m"}"#;
    assert_eq!(status(http, PATH, Some(fault)).await, 200);
    assert_eq!(status(http, "/products", None).await, 503);
    assert_eq!(status(http, "/", None).await, 200);
    // What cannot be read changes nothing.
    assert_eq!(status(http, PATH, Some("banana")).await, 400);
    assert_eq!(status(http, "/products", None).await, 503);
}

#[tokio::test]
async fn application_begins_with_fault_of_its_settings() {
    let begin = |fault: &str| {
        Bound::bind(Settings {
            fault: Some(fault.to_owned()),
            ..Settings::on_free_ports()
        })
    };
    let bound = begin(r#"{"only": "/cart"}"#).await.unwrap();
    let http = bound.addresses().unwrap()[0];
    tokio::spawn(bound.serve(std::future::pending()));
    assert_eq!(status(http, "/cart", None).await, 503);
    assert_eq!(status(http, "/", None).await, 200, "probes succeed");
    assert_eq!(status(http, PATH, Some(r#"{"percent": 0}"#)).await, 200);
    assert_eq!(
        status(http, "/cart", None).await,
        200,
        "an order replaces it"
    );
    let error = begin(r#"{"precent": 50}"#).await.unwrap_err();
    assert!(format!("{error:#}").starts_with("FAULT: "), "{error:#}");
}

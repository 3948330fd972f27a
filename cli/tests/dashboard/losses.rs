//! The page's messages about a loss and its end: which part is away, and nothing that is over.
//!
//! Claims: observe-67

use crate::Shown;
use crate::shop;

#[tokio::test]
async fn recovery_message_matches_lost_part_and_clears_on_loss() {
    let mut shown = Shown::of(&shop::shop(60)).await;
    let words = "document.querySelector('#words').textContent";
    let alert = "document.querySelector('#alert').textContent";
    shown.mesh.lose(true).await;
    let browser = &mut shown.browser;
    browser
        .wait(&format!("{alert}.includes('no controller answers')"))
        .await;
    // Its sign is not that of refused calls, and that of no calls is what is drawn.
    let border = "getComputedStyle(document.querySelector('.scroller')).borderLeftStyle";
    assert_eq!(browser.eval(border).await, "solid");
    let legend = browser.text(".legend").await;
    assert!(legend.contains("□ no calls"), "{legend}");
    shown.mesh.lose(false).await;
    let returned = format!("{words} === 'The controller answers again.'");
    browser.wait(&returned).await;
    // A right that ends and comes back is no controller that does.
    shown.mesh.forbid("shop").await;
    browser
        .wait("document.querySelector('#alert').className === 'refused'")
        .await;
    assert_eq!(browser.eval(words).await, "", "that is over");
    let alert_text = browser.text("#alert").await;
    assert!(!alert_text.contains("no controller"), "{alert_text}");
    shown.mesh.allow().await;
    let returned = format!("{words} === 'This reader is answered again.'");
    browser.wait(&returned).await;
    // Nor is a program that was stopped.
    shown.page("Health").await;
    shown.weft.stop().await;
    let browser = &mut shown.browser;
    browser
        .wait(&format!("{alert}.includes('was it stopped?')"))
        .await;
    let alert_text = browser.text("#alert").await;
    assert!(!alert_text.contains("controller"), "{alert_text}");
    assert_eq!(browser.eval(words).await, "", "that is over too");
    let row = "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].textContent === 'Controller answers')";
    browser
        .wait(&format!(
            "{row}?.cells[1].textContent.trim() === '? not known'"
        ))
        .await;
    assert_eq!(browser.faults().await, [""; 0]);
}

//! The namespace in which the webhooks are tried, where somebody names it.

use super::*;

#[tokio::test(start_paused = true)]
async fn namespace_that_is_not_there_is_bad_input_and_not_two_checks_that_are_skipped() {
    let lines: [&[&str]; 3] = [&[], &["--wait", "2m"], &["--fail-on", "warning"]];
    for more in lines {
        let begun = Instant::now();
        let arguments = [&["-n", "shpo"][..], more].concat();
        let (ended, report, _) = checked(&healthy(), WELL, &arguments).await;
        let Err(Failure::Usage(words)) = ended else {
            panic!("{more:?}: {ended:?}: {report:#}");
        };
        assert_eq!(words, "there is no namespace shpo; you may mean shop");
        assert_eq!(report, Value::Null, "{more:?}");
        assert_eq!(begun.elapsed().as_secs(), 0, "{more:?}");
    }
    let (ended, report, _) = checked(&healthy(), WELL, &["-n", "shop"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
}

#[tokio::test]
async fn namespace_in_which_nothing_is_tried_or_that_nobody_may_see_is_not_called_wrong() {
    // Before an installation it may be yet to be made.
    let (ended, report, _) = checked(&healthy(), WELL, &["--pre", "-n", "shpo"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let webhooks = Webhooks {
        sees: false,
        ..WELL
    };
    let (ended, ..) = checked(&healthy(), webhooks, &["-n", "shpo"]).await;
    let Err(Failure::Unknown(words)) = ended else {
        panic!("{ended:?}");
    };
    assert!(words.contains("every check of it was skipped"), "{words}");
}

#[tokio::test]
async fn namespace_of_weft_that_is_not_there_is_bad_input_and_not_a_mesh_that_is_down() {
    let api = healthy();
    for name in ["weft-system", "mesh"] {
        let path = format!("/api/v1/namespaces/{name}");
        api.put(&path, json!({"metadata": {"name": name}}));
    }
    let misspelt = ["--weft-namespace", "weft-sytem"];
    let (ended, report, _) = checked(&api, WELL, &misspelt).await;
    let Err(Failure::Usage(words)) = ended else {
        panic!("{ended:?}: {report:#}");
    };
    assert_eq!(
        words,
        "there is no namespace weft-sytem; you may mean weft-system"
    );
    // Before an installation it may be yet to be made.
    let (ended, report, _) = checked(&api, WELL, &["--pre", misspelt[0], misspelt[1]]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    // Control: one that is there, without Weft in it.
    let (ended, report, _) = checked(&api, WELL, &["--weft-namespace", "mesh"]).await;
    assert!(!matches!(ended, Err(Failure::Usage(_))), "{ended:?}");
    assert!(
        with(&report, &["error"]).contains(&"controller".to_owned()),
        "{report:#}"
    );
    // The usual one is named by nobody, and costs no question.
    let api = healthy();
    let (ended, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    assert_eq!(api.reads("/api/v1/namespaces/weft-system"), 0);
}

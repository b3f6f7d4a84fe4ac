//! A8: expensive answers are kept as long as they hold, and no longer.

use reqwest::Response;
use serde_json::Value;
use weir_control_plane::store::erasure::Kind;

use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, mixed_flows, recent_minute_ns, rfc3339};

async fn ask(plane: &Plane<'_>, path: &str, etag: Option<&str>) -> Response {
    let mut request = plane.request(reqwest::Method::GET, path, ADMIN_TOKEN);
    if let Some(etag) = etag {
        request = request.header("if-none-match", etag);
    }
    request.send().await.expect("an answer")
}

fn etag(response: &Response) -> String {
    response.headers()["etag"].to_str().expect("text").to_owned()
}

fn outcomes(plane: &Plane<'_>) -> [u64; 3] {
    let metrics = &plane.state().metrics.kept_answers;
    ["miss", "hit", "not_modified"].map(|outcome| metrics.with_label_values(&[outcome]).get())
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_an_answer_is_kept_until_its_flows_change() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    plane.store(&token, &batch(1, 0, start, mixed_flows())).await;
    let window = format!("from={}&to={}", rfc3339(start), rfc3339(start + 60 * SECOND));
    for (route, extra) in [("top", "&by=pair"), ("top", "&src=10.0.0.0/8"), ("timeseries", "&step=10")] {
        let path = format!("/api/v1/flows/{route}?{window}{extra}");
        let before = outcomes(&plane);
        let first = ask(&plane, &path, None).await;
        assert_eq!(first.headers()["cache-control"], "private, no-cache");
        let tag = etag(&first);
        let body = first.text().await.expect("text");
        let second = ask(&plane, &path, None).await;
        assert_eq!((etag(&second), second.text().await.expect("text")), (tag.clone(), body.clone()));
        for given in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            let third = ask(&plane, &path, Some(&given)).await;
            assert_eq!((third.status().as_u16(), etag(&third)), (304, tag.clone()), "{given}");
            assert_eq!(third.text().await.expect("nothing"), "");
        }
        let after = outcomes(&plane);
        assert_eq!([0, 1, 2].map(|at| after[at] - before[at]), [1, 1, 3], "{path}");

        // Elsewhere nothing changes; in the window something does.
        let epoch = after[0] * 2;
        plane.store(&token, &batch(2, epoch, start + 120 * SECOND, mixed_flows())).await;
        assert_eq!(ask(&plane, &path, Some(&tag)).await.status(), 304, "{path}");
        plane.store(&token, &batch(2, epoch + 1, start + 5 * SECOND, mixed_flows())).await;
        let changed = ask(&plane, &path, Some(&tag)).await;
        assert_eq!(changed.status(), 200, "{path}");
        assert_ne!(etag(&changed), tag);
        assert_ne!(changed.text().await.expect("text"), body);
    }
}

/// What an answer is set against, and the whole steps at its ends, count too.
#[tokio::test(flavor = "multi_thread")]
async fn a8_what_changes_outside_the_window_but_in_the_answer_is_seen() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns() / (600 * SECOND) * 600 * SECOND;
    let (from, to) = (rfc3339(start), rfc3339(start + 60 * SECOND));
    let late = rfc3339(start + 30 * SECOND);
    let cases = [
        (format!("/api/v1/flows/top?from={from}&to={to}&compare=previous"), start - 60 * SECOND),
        (
            format!("/api/v1/flows/timeseries?from={from}&to={to}&step=30&compare=previous"),
            start - 30 * SECOND,
        ),
        (format!("/api/v1/flows/timeseries?from={late}&to={to}&step=5m"), start),
    ];
    for (epoch, (path, elsewhere)) in (0..).zip(cases) {
        let tag = etag(&ask(&plane, &path, None).await);
        plane.store(&token, &batch(1, epoch, elsewhere, mixed_flows())).await;
        assert_eq!(ask(&plane, &path, Some(&tag)).await.status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_sensor_that_goes_takes_its_answers_along() {
    let plane = Plane::start().await;
    let start = recent_minute_ns();
    for name in ["edge-1", "edge-2"] {
        let token = plane.sensor(name).await;
        plane.store(&token, &batch(1, 0, start, mixed_flows())).await;
    }
    let path = format!("/api/v1/flows/top?from={}&to={}", rfc3339(start), rfc3339(start + 60 * SECOND));
    let tag = etag(&ask(&plane, &path, None).await);
    plane.begin_erasure(Kind::Sensor, "edge-1").await;
    // While its rows go, nothing is kept.
    let during = ask(&plane, &path, Some(&tag)).await;
    assert_eq!((during.status().as_u16(), during.headers().contains_key("etag")), (200, false));
    assert!(plane.jobs().round(jiff::Timestamp::now()).await.expect("the round runs"));
    let after = ask(&plane, &path, Some(&tag)).await;
    assert_eq!(after.status(), 200);
    assert_ne!(etag(&after), tag);
    let top: Value = after.json().await.expect("JSON");
    assert_eq!(top["total"]["flows"], 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_questions_about_now_have_no_tag_and_no_credential_no_answer() {
    let plane = Plane::start_with(|config| config.api.cache_bytes = 0).await;
    let start = recent_minute_ns();
    let whole = format!("/api/v1/flows/top?from={}&to={}", rfc3339(start), rfc3339(start + 60 * SECOND));
    for path in ["/api/v1/flows/top", "/api/v1/flows/timeseries?step=1m"] {
        assert!(!ask(&plane, path, None).await.headers().contains_key("etag"), "{path}");
    }
    let before = outcomes(&plane);
    let tag = etag(&ask(&plane, &whole, None).await);
    assert_eq!(etag(&ask(&plane, &whole, None).await), tag);
    assert_eq!(outcomes(&plane)[0] - before[0], 2, "with no room each is worked out");
    let stranger = plane.http.get(plane.url(&whole)).header("if-none-match", "*").send().await;
    assert_eq!(stranger.expect("an answer").status(), 401);
}

//! What the optimisations go by, who watches them, and what became of them, in sentences.

use ratatui::style::Style;
use ratatui::text::Line;

use super::draw::{BAD, GOOD, POOR};
use super::stats::Stats;

/// Where each feature stands.
pub fn features(stats: &Stats) -> impl Iterator<Item = Stats> {
    stats.items("/metal_optimizations/features")
}

/// Whether a feature works.
pub fn is_active(stats: &Stats, feature: &str) -> bool {
    features(stats)
        .any(|status| status.text("/feature") == Some(feature) && status.flag("/active") == Some(true))
}

/// All there is to say; nothing is said of what the server does not tell.
pub fn lines(stats: &Stats) -> Vec<Line<'static>> {
    let mut lines = vec![Line::raw(master(stats))];
    lines.extend(guard(stats));
    lines.extend(rollout(stats));
    for status in features(stats) {
        if let (Some(feature), Some(reason)) = (status.text("/feature"), status.text("/latched")) {
            lines.push(Line::styled(format!("{feature} has failed and is off: {reason}"), BAD));
        }
    }
    for rollback in stats.items("/metal_optimizations/rollbacks") {
        if let (Some(feature), Some(reason)) = (rollback.text("/feature"), rollback.text("/reason")) {
            let times = rollback.number("/count").unwrap_or(1.0);
            lines.push(Line::styled(format!("{feature} was rolled back for {reason} ({times:.0} ×)"), BAD));
        }
    }
    if let Some(decision) = stats.items("/metal_optimizations/decisions").last() {
        let by = decision.text("/by").unwrap_or("somebody");
        let action = decision.text("/action").unwrap_or("something").replace('_', " ");
        let reason = decision.text("/reason").map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(Line::raw(format!("last decision: {by}, {action}{reason}")));
    }
    lines
}

/// The master switch and the self-check behind it.
fn master(stats: &Stats) -> String {
    let place = |name: &str| format!("/metal_optimizations/{name}");
    let enabled = match (stats.flag(&place("enabled")), stats.text(&place("enabled"))) {
        (Some(true), _) => "on",
        (Some(false), _) => "off",
        (None, Some(text)) => text,
        (None, None) => return "optimisations: nothing is told before the model is loaded".to_owned(),
    };
    let verdict = match (stats.text(&place("verdict/failure")), stats.number(&place("verdict/speedup"))) {
        (Some(failure), _) => format!("; the self-check says off: {failure}"),
        (None, Some(speedup)) => format!("; the self-check found {speedup:.2} × the plain throughput"),
        (None, None) => String::new(),
    };
    format!("optimisations: {enabled}{verdict}")
}

/// Whoever compares steps with plain ones while requests run.
fn guard(stats: &Stats) -> Option<Line<'static>> {
    let place = |name: &str| format!("/metal_optimizations/guard/{name}");
    let state = stats.text(&place("state"))?.to_owned();
    let style = if state == "confirming" { POOR } else { Style::new() };
    let windows = stats.number(&place("windows")).filter(|windows| *windows > 0.0);
    let windows = windows.map(|windows| format!(", {windows:.0} windows without a finding"));
    let text = format!("guard: {state}{}{}", windows.unwrap_or_default(), figures(stats, &place("figures")));
    Some(Line::styled(text, style))
}

/// Whose requests the optimisations are tried on.
fn rollout(stats: &Stats) -> Option<Line<'static>> {
    let place = |name: &str| format!("/metal_optimizations/rollout/{name}");
    let state = stats.text(&place("state"))?.replace('_', " ");
    let style = match state.as_str() {
        "done" => GOOD,
        "rolled back" => BAD,
        "running" | "waiting" => POOR,
        _ => Style::new(),
    };
    let stages = stats.items(&place("stages")).count();
    let stage = stats.number(&place("stage")).filter(|stage| *stage > 0.0);
    let stage = stage.map(|stage| format!(", stage {stage:.0} of {stages}")).unwrap_or_default();
    let percent = stats.number(&place("percent"));
    let percent = percent.map(|percent| format!(", {percent:.0} % of the requests")).unwrap_or_default();
    let text = format!("rollout: {state}{stage}{percent}{}", figures(stats, &place("figures")));
    Some(Line::styled(text, style))
}

/// What two sides were found to be to each other.
fn figures(stats: &Stats, place: &str) -> String {
    let number = |name: &str| stats.number(&format!("{place}/{name}"));
    let mut text = String::new();
    if let Some(speedup) = number("speedup") {
        text += &format!("; {speedup:.2} × the other side's throughput");
    }
    if let Some((low, high)) = number("speedup_low").zip(number("speedup_high")) {
        text += &format!(" ({low:.2} to {high:.2})");
    }
    if let Some(ratio) = number("p95_ratio") {
        text += &format!(", p95 {ratio:.2} ×");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(metal: Value) -> Vec<String> {
        let stats = Stats::new(json!({"metal_optimizations": metal}));
        lines(&stats).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_master_switch() {
        let first = |metal| said(metal)[0].clone();
        assert_eq!(first(json!({"enabled": true})), "optimisations: on");
        assert_eq!(first(json!({"enabled": false, "verdict": null})), "optimisations: off");
        let auto = json!({"enabled": "auto", "verdict": {"speedup": 1.312, "failure": null}});
        assert_eq!(first(auto), "optimisations: auto; the self-check found 1.31 × the plain throughput");
        let failed = json!({"enabled": "auto", "verdict": {"speedup": null, "failure": "token 3 differs"}});
        assert_eq!(first(failed), "optimisations: auto; the self-check says off: token 3 differs");
        assert_eq!(said(Value::Null), ["optimisations: nothing is told before the model is loaded"]);
    }

    #[test]
    fn guard_and_rollout_where_there_are_any() {
        let figures = json!({"speedup": 1.3, "speedup_low": 1.21, "speedup_high": 1.42, "p95_ratio": 0.88});
        let metal = json!({
            "enabled": true,
            "features": [
                {"feature": "memory_pool", "latched": null},
                {"feature": "blit_queue", "latched": "it timed out"},
            ],
            "guard": {"state": "watching", "windows": 12, "figures": figures},
            "rollout": {"state": "rolled_back", "stage": 2, "stages": [10, 50, 100], "percent": 0, "figures": {}},
            "rollbacks": [{"feature": "command_buffer_ring", "reason": "p95", "count": 2}],
            "decisions": [
                {"by": "rollout", "action": "start", "reason": "10 %"},
                {"by": "guard", "action": "roll_back", "reason": "0.81 × plain"},
            ],
        });
        assert_eq!(
            said(metal),
            [
                "optimisations: on",
                "guard: watching, 12 windows without a finding; 1.30 × the other side's throughput (1.21 to 1.42), \
                 p95 0.88 ×",
                "rollout: rolled back, stage 2 of 3, 0 % of the requests",
                "blit_queue has failed and is off: it timed out",
                "command_buffer_ring was rolled back for p95 (2 ×)",
                "last decision: guard, roll back: 0.81 × plain",
            ]
        );
    }

    #[test]
    fn another_form_is_no_reason_to_fail() {
        for odd in [json!(7), json!([]), json!("text"), json!({"state": 3}), json!({"state": ""})] {
            let metal = json!({
                "enabled": true, "guard": odd, "rollout": odd, "features": odd, "rollbacks": odd, "decisions": odd,
            });
            assert_eq!(said(metal), ["optimisations: on"], "{odd}");
        }
        let said = said(json!({"enabled": true, "decisions": [7], "rollbacks": [7], "features": [7]}));
        assert_eq!(said, ["optimisations: on", "last decision: somebody, something"]);
    }
}

//! `top`, asked once of a running server.

use std::io::Read;

use crate::run::{bessemer, command};
use crate::serve::Server;

const TOKEN: &str = "a token";

fn serve() -> Server {
    let mut command = command();
    command.env("BESSEMER_ADMIN_TOKEN", TOKEN).env("METAL_OPTIMIZATIONS_ENABLED", "true");
    Server::run(&mut command, &["--port", "0", "--admin-port", "0", "--device", "cpu"])
}

/// What stands behind the name of a line.
fn after<'a>(frame: &'a str, name: &str) -> &'a str {
    let (_, rest) = frame.split_once(name).unwrap_or_else(|| panic!("no {name} in\n{frame}"));
    rest.lines().next().unwrap_or_default().trim_start()
}

fn number(text: &str) -> f64 {
    let number = text.split(' ').next().unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{text:?} begins with no number"))
}

#[test]
fn a_frame_tells_what_the_server_does() {
    let server = serve();
    let url = format!("http://{}", server.operator());
    let once = ["top", "--once", "--interval", "300ms", "--token", TOKEN, "--url", &url];
    let before = bessemer(&once);
    let before = before.output();
    assert!(before.lines().next().unwrap().contains("running"), "{before}");
    assert!(after(before, "│Throughput").starts_with('–'), "nothing has been generated: {before}");
    assert!(after(before, "│now").starts_with("0 running, 0 waiting"), "{before}");
    for feature in ["Memory pool on", "Transfers on", "Command ring on"] {
        assert!(before.contains(feature), "no {feature} in\n{before}");
    }

    let body = r#"{"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "ignore_eos": true}"#;
    for _ in 0..3 {
        let mut answer = String::new();
        server.send("POST", "/v1/completions", "", body).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let frame = bessemer(&once);
    let frame = frame.output();
    assert_eq!(after(frame, "│ended").split('│').next().unwrap().trim(), "3 done, 0 cancelled, 0 failed");
    // Baseline, current, target, improvement.
    let columns = |name: &str| -> Vec<String> {
        let cells = after(frame, name).trim_end_matches('│').split("  ");
        cells.map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let throughput = columns("│Throughput");
    assert_eq!(
        (throughput.len(), throughput[0].as_str(), throughput[2].as_str()),
        (4, "–", "+40.0 %"),
        "{frame}"
    );
    assert!(throughput[1].ends_with(" tok/s") && number(&throughput[1]) > 1.0, "{frame}");
    let first_token = columns("│Time to first token");
    assert!(first_token[1].ends_with(" ms") && number(&first_token[1]) > 0.0, "{frame}");
    let utilisation = number(&columns("│GPU utilisation")[1]);
    assert!(utilisation > 0.0 && utilisation <= 100.0, "{frame}");
    assert!(frame.lines().all(|line| line.chars().count() <= 100), "{frame}");
}

#[test]
fn whoever_has_no_token_is_told_how_to_give_it() {
    let server = serve();
    let url = format!("http://{}", server.operator());
    let without = bessemer(&["top", "--once", "--url", &url]);
    assert_eq!(without.code, Some(1));
    assert!(without.stderr.contains("Set BESSEMER_ADMIN_TOKEN, or give --token"), "{}", without.stderr);
    let output = command()
        .args(["top", "--once", "--interval", "100ms", "--url", &url])
        .env("BESSEMER_ADMIN_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let public = server.public();
    let other = bessemer(&["top", "--once", "--url", &format!("http://{public}")]);
    assert!(other.stderr.contains("must be the operator's listener of `bessemer serve`"), "{}", other.stderr);
}

//! `config` as its users see it.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::run::command;

/// Runs `bessemer` in a folder with some variables; exit code, standard output, standard error.
fn run(folder: &Path, line: &str, variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command: Command = command();
    command.current_dir(folder).args(line.split(' ')).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_file_is_begun_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run = |line: &str| run(folder.path(), line, &[]);
    let (code, said, _) = run("config check");
    assert_eq!((code, said.as_str()), (0, "there is no config/runtime.yaml, which need not be\n"));

    let (code, said, _) = run("config init --preset batch");
    assert_eq!((code, said.as_str()), (0, "wrote config/runtime.yaml and config/runtime.schema.json\n"));
    let text = std::fs::read_to_string(folder.path().join("config/runtime.yaml")).unwrap();
    assert!(text.starts_with("# yaml-language-server: $schema=runtime.schema.json\n"), "{text}");
    let schema = std::fs::read_to_string(folder.path().join("config/runtime.schema.json")).unwrap();
    assert_eq!(schema, run("config schema").1);
    let (code, _, errors) = run("config init");
    assert!(code == 1 && errors.contains("it is there already") && errors.contains("--force"), "{errors}");
    assert_eq!(run("config init --preset debug --force").0, 0);

    let (code, said, _) = run("config check");
    assert_eq!((code, said.as_str()), (0, "config/runtime.yaml: nothing is wrong with it\n"));
    let (code, said, _) = run("config show --port 9000");
    assert_eq!(code, 0);
    let line = |name: &str| said.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
    assert!(line("port: 9000").ends_with("# argument --port"), "{said}");
    assert!(line("num_heaps: 2").ends_with("# preset debug"), "{said}");
    assert!(line("preset: debug").contains("# config/runtime.yaml:"), "{said}");
    assert!(line("max_queue: 256").ends_with("# default"), "{said}");
    std::fs::write(folder.path().join("shown.yaml"), said).unwrap();
    let (code, again, errors) = run("config show --config shown.yaml");
    assert_eq!(code, 0, "{errors}");
    assert!(again.contains("port: 9000") && again.contains("# shown.yaml:"), "{again}");
    assert_eq!(run("config show --config /dev/null --json").0, 0, "an empty file says nothing");
}

#[test]
fn every_source_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.yaml");
    std::fs::write(&file, "max_queue: 3\nmetal_optimizations: {blit_queue: {max_concurrent_ops: 5}}\n")
        .unwrap();
    let variables = [
        ("BESSEMER_CONFIG", "own.yaml"),
        ("METAL_OPTIMIZATIONS_ENABLED", "false"),
        ("BESSEMER_API_KEY", "hunter2"),
    ];
    let (code, said, errors) =
        run(folder.path(), "config show --json --cmd-ring off --preset realtime", &variables);
    assert_eq!(code, 0, "{errors}");
    assert!(
        errors.contains("note: own.yaml:2: metal_optimizations.blit_queue.max_concurrent_ops"),
        "{errors}"
    );
    assert!(!said.contains("hunter2"));
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    let optimizations = &shown["config"]["metal_optimizations"];
    assert_eq!(optimizations["enabled"], json!(false));
    assert_eq!(optimizations["blit_queue"]["max_pending_ops"], json!(5));
    assert_eq!(optimizations["command_buffer_ring"]["enabled"], json!(false));
    let origins = &shown["origins"];
    assert_eq!(origins["max_queue"], "own.yaml:1");
    assert_eq!(origins["api_key"], "environment BESSEMER_API_KEY");
    assert_eq!(origins["metal_optimizations"]["enabled"], "environment METAL_OPTIMIZATIONS_ENABLED");
    assert_eq!(origins["metal_optimizations"]["command_buffer_ring"]["enabled"], "argument --cmd-ring");
    assert_eq!(origins["metal_optimizations"]["memory_pool"]["num_heaps"], "preset realtime");
    assert_eq!(origins["port"], "default");
}

#[test]
fn every_mistake_is_a_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wrong.yaml"), "port: 0x50\nhots: a\n").unwrap();
    let (code, said, errors) = run(folder.path(), "config check --config wrong.yaml", &[]);
    assert_eq!((code, said.as_str()), (1, ""));
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with("error: wrong.yaml:1: port is 0x50"), "{errors}");
    assert!(lines[1].starts_with("wrong.yaml:2: hots is given"), "{errors}");
    for line in ["config show --config wrong.yaml", "serve --config wrong.yaml"] {
        assert_eq!(run(folder.path(), line, &[]).2, errors, "{line}");
    }
    std::fs::write(folder.path().join("latin.yaml"), [b'a', 0xE9]).unwrap();
    let (code, _, errors) = run(folder.path(), "config check --config latin.yaml", &[]);
    assert!(code == 1 && errors.contains("it is not UTF-8 text"), "{errors}");
}

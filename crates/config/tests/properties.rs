//! What holds for every configuration: it survives being shown and read, and no text is too odd to be read.

use bessemer_config::{
    ConfigFile, Configuration, Key, Kind, PRESETS, Settings, Sources, Value, keys, template,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value as Json, json};

fn read(text: &str) -> Result<Configuration, bessemer_config::ConfigError> {
    Sources { file: Some(file(text)), ..Sources::default() }.resolve()
}

fn file(text: &str) -> ConfigFile {
    ConfigFile { path: "runtime.yaml".into(), text: text.to_owned() }
}

fn words() -> impl Strategy<Value = String> {
    // Anything that a person or an attacker may put there; empty texts are no values.
    prop_oneof![
        "[a-z0-9./:_-]{1,20}".boxed(),
        "\\PC{1,12}".boxed(),
        prop::sample::select(vec![
            "null",
            "auto",
            "true",
            "- a",
            "a: b",
            "#",
            "\u{85}\u{2028}\u{FEFF}\t\n",
            "🔑"
        ])
        .prop_map(str::to_owned)
        .boxed(),
    ]
}

/// Values that a key takes, as JSON.
fn values(key: &'static Key) -> BoxedStrategy<Json> {
    let some = match &key.kind {
        Kind::Flag => any::<bool>().prop_map(Json::from).boxed(),
        Kind::Switch => prop::sample::select(vec![json!(false), json!(true), json!("auto")]).boxed(),
        Kind::Whole(range) => range.clone().prop_map(Json::from).boxed(),
        Kind::WholeOrZero(range) => prop_oneof![Just(0), range.clone()].prop_map(Json::from).boxed(),
        Kind::Number(range) => range.clone().prop_map(Json::from).boxed(),
        Kind::Bytes(range) => range.clone().prop_map(Json::from).boxed(),
        Kind::Text | Kind::Secret => words().prop_map(Json::from).boxed(),
        Kind::Name(names) => prop::sample::select(*names).prop_map(Json::from).boxed(),
        Kind::Preset => prop::sample::select(PRESETS).prop_map(|preset| Json::from(preset.name)).boxed(),
        Kind::Device => prop::sample::select(vec!["auto", "cpu", "vulkan", "vulkan:3", "metal"])
            .prop_map(Json::from)
            .boxed(),
        Kind::Wholes(range) => vec(range.clone(), 0..4).prop_map(Json::from).boxed(),
        Kind::Texts => vec(words(), 0..4).prop_map(Json::from).boxed(),
    };
    match key.absent {
        Some(_) => prop_oneof![4 => some, 1 => Just(Json::Null)].boxed(),
        None => some,
    }
}

/// A document with some of the keys.
fn documents() -> impl Strategy<Value = Json> {
    let chosen = keys().iter().map(|key| prop::option::weighted(0.12, values(key))).collect::<Vec<_>>();
    chosen.prop_map(|chosen| {
        let mut root = Map::new();
        for (key, value) in keys().iter().zip(chosen) {
            let Some(value) = value else { continue };
            let mut map = &mut root;
            for name in key.section().split('.').filter(|name| !name.is_empty()) {
                map = map.entry(name).or_insert_with(|| json!({})).as_object_mut().unwrap();
            }
            map.insert(key.name().to_owned(), value);
        }
        Json::Object(root)
    })
}

/// Something like a line of a file.
const LINE: &str = "[ ]{0,6}[a-z_]{1,12}:? ?[\\[\\]{}&*!|>'\"%@`#,~a-z0-9.-]{0,8}";

/// Secrets are not shown, so they are not read again.
fn without_secrets(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.server.api_key = None;
    settings.admin.token = None;
    settings
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// JSON is YAML, so the documents are files as they are. Those that are impossible say why and name a key.
    #[test]
    fn what_is_shown_is_read_as_what_it_was(document in documents()) {
        match read(&document.to_string()) {
            Err(error) => {
                for problem in &error.problems {
                    let known = keys().iter().any(|key| key.path == problem.field);
                    prop_assert!(known && !problem.rule.is_empty() && !problem.cure.is_empty(), "{}", problem);
                    prop_assert!(problem.origin.is_some(), "{} has no line", problem);
                }
            }
            Ok(configuration) => {
                let mut shown = configuration.yaml();
                if configuration.settings().admin.token.is_some() {
                    // What is not shown may be what makes an address possible.
                    shown = shown.replacen("\nadmin:\n", "\nadmin:\n  token: t\n", 1);
                }
                let again = read(&shown).map_err(|error| TestCaseError::fail(format!("{error}\n{shown}")))?;
                prop_assert_eq!(without_secrets(again.settings()), without_secrets(configuration.settings()));
            }
        }
    }

    /// A value that is out of range or of another type changes nothing else: the message is about that key.
    #[test]
    fn a_patch_is_all_or_nothing(first in documents(), second in documents()) {
        let Ok(base) = read(&json!({"metal_optimizations": first["metal_optimizations"]}).to_string()) else {
            return Ok(());
        };
        let patch = json!({"metal_optimizations": second["metal_optimizations"]});
        let before = base.settings().clone();
        if let Ok(patched) = base.patched(&patch) {
            let changed: Vec<_> = patched.changes_from(&base).iter().map(|change| change.key.path).collect();
            for key in keys().iter().filter(|key| changed.contains(&key.path)) {
                prop_assert_eq!(patched.origin(key).to_string(), "changed at run time");
            }
            let back = patched.patched(&json!({"metal_optimizations": null})).unwrap();
            prop_assert_eq!(back.settings(), &before);
        }
        prop_assert_eq!(base.settings(), &before);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", lines in vec(LINE, 0..12)) {
        let _ = read(&text);
        let _ = read(&lines.join("\n"));
    }
}

/// The properties above would say little of documents that are all impossible.
#[test]
fn the_documents_are_of_both_kinds() {
    let mut runner = TestRunner::deterministic();
    let mut possible = 0;
    for _ in 0..200 {
        let document = documents().new_tree(&mut runner).unwrap().current();
        possible += usize::from(read(&document.to_string()).is_ok());
    }
    assert!((60..190).contains(&possible), "{possible} of 200 documents are possible");
}

#[test]
fn the_template_says_the_defaults_and_its_lines_may_be_taken_in() {
    let text = template(None, Some("runtime.schema.json"));
    assert_eq!(read(&text).unwrap().settings(), &Settings::default());
    // A line such as `# port: 8080`, and not one of prose.
    let uncommented: Vec<String> = text
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            let value = bare.strip_prefix("# ").filter(|rest| {
                rest.split_once(": ").is_some_and(|(name, _)| keys().iter().any(|key| key.name() == name))
            });
            value.map_or(line.to_owned(), |value| format!("{}{value}", &line[..line.len() - bare.len()]))
        })
        .collect();
    let configuration = read(&uncommented.join("\n")).unwrap();
    assert_eq!(configuration.settings(), &Settings::default());
    for key in keys() {
        assert!(configuration.origin(key).to_string().starts_with("runtime.yaml:"), "{}", key.path);
    }
    for preset in PRESETS {
        let configuration = read(&template(Some(preset.name), None)).unwrap();
        assert_eq!(configuration.settings().preset.as_deref(), Some(preset.name));
        for (path, value) in preset.settings() {
            let key = keys().iter().find(|key| key.path == path).expect("a preset names keys");
            assert_eq!(configuration.origin(key).to_string(), format!("preset {}", preset.name));
            let shown = key.value(configuration.settings()).to_string();
            assert_eq!(shown.replace(['[', ']', ' '], ""), value, "{path}");
        }
    }
}

/// The ranges of the table are those of the runtime: what the one takes, the other takes.
#[test]
fn ranges_are_those_of_the_runtime() {
    let mut checked = 0;
    for key in keys().iter().filter(|key| key.path.starts_with("metal_optimizations.")) {
        let (Kind::Whole(range) | Kind::WholeOrZero(range)) = &key.kind else { continue };
        for (value, inside) in [
            (*range.start(), true),
            (*range.end(), true),
            (range.start().wrapping_sub(1), false),
            (range.end() + 1, false),
        ] {
            let path = key.path.strip_prefix("metal_optimizations.").unwrap();
            let mut settings = bessemer_runtime::Optimizations::default();
            let field: &mut dyn FnMut(u64) = match path {
                "memory_pool.heap_size_mb" => &mut |v| {
                    settings.memory_pool.config.heap_size_mb = v;
                    settings.memory_pool.config.warmup_buffer_sizes_mb.clear();
                },
                "memory_pool.num_heaps" => &mut |v| settings.memory_pool.config.num_heaps = v as usize,
                "memory_pool.max_heap_size_mb" => &mut |v| {
                    settings.memory_pool.config.max_heap_size_mb = v;
                    settings.memory_pool.config.heap_size_mb = 64;
                    settings.memory_pool.config.warmup_buffer_sizes_mb.clear();
                },
                "memory_pool.min_heaps" => &mut |v| {
                    settings.memory_pool.config.min_heaps = v as usize;
                    settings.memory_pool.config.num_heaps = 16;
                },
                "blit_queue.timeout_ms" => &mut |v| settings.blit_queue.config.timeout_ms = v,
                "blit_queue.max_pending_ops" => {
                    &mut |v| settings.blit_queue.config.max_pending_ops = v as usize
                }
                "blit_queue.staging_buffer_size_mb" => {
                    &mut |v| settings.blit_queue.config.staging_buffer_size_mb = v
                }
                "command_buffer_ring.ring_size" => {
                    &mut |v| settings.command_buffer_ring.config.ring_size = v as usize
                }
                "command_buffer_ring.max_wait_ms" => {
                    &mut |v| settings.command_buffer_ring.config.max_wait_ms = v
                }
                "command_buffer_ring.layers_per_command_buffer" => &mut |v| {
                    settings.command_buffer_ring.config.layers_per_command_buffer = Some(v as usize);
                },
                // The runtime takes any, and nothing runs by the percent yet.
                "blit_queue.direct_write_bytes" | "rollout.percent" => continue,
                other => panic!("{other} is compared with nothing"),
            };
            field(value);
            checked += 1;
            assert_eq!(settings.validate().is_ok(), inside, "{path} = {value}");
        }
    }
    assert_eq!(checked, 40);
}

#[test]
fn the_value_of_a_key_is_shown_as_its_kind_has_it() {
    let shown = |path: &str, value: &Value| {
        keys().iter().find(|key| key.path == path).map(|key| key.spelled(value)).unwrap()
    };
    assert_eq!(shown("threads", &Value::Absent), "auto");
    assert_eq!(shown("revision", &Value::Absent), "null");
    assert_eq!(shown("cors", &Value::Texts(vec!["*".into()])), "[\"*\"]");
}

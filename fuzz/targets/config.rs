//! Configuration files and changes at run time: each is refused with messages that name a key, or comes to settings that the
//! runtime takes and that survive being shown and read again.
#![no_main]

use bessemer_config::{ConfigFile, Configuration, Sources};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(configuration) = read(text) else { return };
    configuration.settings().optimizations.validate().expect("a configuration was checked");
    let shown = configuration.yaml();
    if configuration.settings().admin.token.is_none() {
        // A token is not shown, and may be what makes an address possible.
        let again = read(&shown).unwrap_or_else(|| panic!("what was shown is refused:\n{shown}"));
        let mut settings = configuration.settings().clone();
        settings.server.api_key = None;
        assert_eq!(again.settings(), &settings, "{shown}");
    }
    let Ok(patch) = serde_json::from_str::<serde_json::Value>(text) else { return };
    if let Ok(patched) = configuration.patched(&patch) {
        patched.settings().optimizations.validate().expect("a change was checked");
    }
});

fn read(text: &str) -> Option<Configuration> {
    let file = ConfigFile { path: "runtime.yaml".into(), text: text.to_owned() };
    match (Sources { file: Some(file), ..Sources::default() }).resolve() {
        Ok(configuration) => {
            assert!(configuration.notes().iter().all(|note| note.len() < 1000));
            Some(configuration)
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                let message = problem.to_string();
                assert!(message.len() < 1500 && !message.contains('\n'), "{message}");
                assert!(!problem.rule.is_empty() && !problem.cure.is_empty(), "{message}");
            }
            None
        }
    }
}

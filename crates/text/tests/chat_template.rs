//! Chat templates against the recorded output of `transformers`, and their behaviour on odd templates.

mod golden;

use bessemer_text::{ChatInput, ChatTemplate, TemplateError, TokenStrings};
use golden::{read, text};
use serde_json::{Map, Value, json};

fn no_tokens() -> TokenStrings {
    TokenStrings::default()
}

/// Renders one user message with further variables.
fn render_with(source: &str, variables: Value) -> Result<String, TemplateError> {
    let variables = variables.as_object().cloned().unwrap_or_default();
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let input =
        ChatInput { messages: &messages, tools: None, add_generation_prompt: true, variables: &variables };
    ChatTemplate::new(source, no_tokens())?.render(&input)
}

fn render(source: &str) -> Result<String, TemplateError> {
    render_with(source, json!({}))
}

#[test]
fn renders_as_recorded() {
    for name in ["qwen3", "llama3", "mistral", "glm"] {
        let record: Value = serde_json::from_str(&read(&format!("chat/{name}.json"))).expect(name);
        let tokens = TokenStrings::from_tokenizer_config(&record);
        let template = ChatTemplate::new(&read(&format!("chat/{name}.jinja")), tokens).expect(name);
        let cases = record["cases"].as_array().expect("a list of cases");
        assert!(cases.len() >= 14, "{name} has lost cases");
        for case in cases {
            let variables = case["variables"].as_object().expect("a map");
            let result = template.render(&ChatInput {
                messages: &case["messages"],
                tools: case.get("tools"),
                add_generation_prompt: case["add_generation_prompt"] == true,
                variables,
            });
            let case_name = format!("{name}: {}", text(&case["name"]));
            match case.get("expected") {
                Some(expected) => assert_eq!(result.expect(&case_name), text(expected), "{case_name}"),
                None if case["raised_by_template"] == true => {
                    let raised = TemplateError::Raised(text(&case["expected_error"]).to_owned());
                    assert_eq!(result, Err(raised), "{case_name}");
                }
                None => assert!(result.is_err(), "{case_name}"),
            }
        }
    }
}

#[test]
fn syntax_errors_name_the_line() {
    let error = ChatTemplate::new("one\ntwo {% if %}\n", no_tokens()).expect_err("a syntax error");
    assert!(matches!(error, TemplateError::Syntax { line: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("line 2"), "{error}");
    let error = render("a\nb\n{{ messages[0].content | no_such_filter }}").expect_err("an unknown filter");
    assert!(error.to_string().contains("line 3") && error.to_string().contains("no_such_filter"), "{error}");
    let error = render("\n{{ nobody.name }}").expect_err("an undefined value");
    assert!(matches!(error, TemplateError::Render { line: Some(2), .. }), "{error:?}");
}

#[test]
fn raised_text_passes_through_macros() {
    let source = "{% macro check(m) %}{{ raise_exception('no ' ~ m.role) }}{% endmacro %}\
                  {% for m in messages %}{{ check(m) }}{% endfor %}";
    assert_eq!(render(source), Err(TemplateError::Raised("no user".to_owned())));
}

#[test]
fn tojson_is_pythons() {
    let variables = json!({"v": {
        "b": "<é&'\"\\\n\u{1}\u{7f}>", "a": [1, 2.0, 1e-7, null, true], "empty": {}, "list": [],
    }});
    let r = |source: &str| render_with(source, variables.clone()).expect(source);
    assert_eq!(
        r("{{ v | tojson }}"),
        "{\"b\": \"<é&'\\\"\\\\\\n\\u0001\u{7f}>\", \"a\": [1, 2.0, 1e-07, null, true], \"empty\": {}, \"list\": []}"
    );
    assert_eq!(r("{{ v.a[:2] | tojson(indent=2) }}"), "[\n  1,\n  2.0\n]");
    assert_eq!(r("{{ {'x': [], 'y': {}} | tojson(indent=2) }}"), "{\n  \"x\": [],\n  \"y\": {}\n}");
    assert_eq!(r("{{ '🚀é' | tojson(ensure_ascii=True) }}"), "\"\\ud83d\\ude80\\u00e9\"");
    assert_eq!(r("{{ {'b': 1, 'a': 2} | tojson(sort_keys=True) }}"), "{\"a\": 2, \"b\": 1}");
    assert_eq!(r("{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':')) }}"), "{\"b\":1,\"a\":2}");
    assert!(render("{{ nobody | tojson }}").is_err());
}

#[test]
fn python_methods() {
    for (source, expected) in [
        ("{{ 'a,b,c'.split(',')[-1] }}", "c"),
        ("{{ 'a b  c'.rsplit(None, 1) | tojson }}", "[\"a b\", \"c\"]"),
        ("{{ 'a,b,c'.rsplit(',', 1) | tojson }}", "[\"a,b\", \"c\"]"),
        ("{{ 'a=b=c'.partition('=') | tojson }}", "[\"a\", \"=\", \"b=c\"]"),
        ("{{ 'abc'.rpartition('=') | tojson }}", "[\"\", \"\", \"abc\"]"),
        ("{{ '<think>x'.removeprefix('<think>').removesuffix('y') }}", "x"),
        ("{{ '\n x \n'.strip() }}{{ 'xxa'.lstrip('x') }}", "xa"),
        ("{{ 'abc'.startswith('ab') and 'abc'.endswith(('b', 'c')) }}", "True"),
        ("{{ {'a': 1}.get('b', 2) }}{{ none }}{{ true }}", "2NoneTrue"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
        ("{{ messages[::-1][0]['content'][1:] }}", "i"),
        ("{{ 'a\n\nb' | indent(2) }}|{{ 'a\nb' | indent(width='> ', first=true) }}", "a\n\n  b|> a\n> b"),
        ("{{ 'two: %d' | format(2) }} {{ '{:>3}'.format(7) }}", "two: 2   7"),
        ("{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}{{ range(3) | list }}", "531[0, 1, 2]"),
        (
            "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "013",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        (
            "{{ messages is iterable }}{{ messages[0] is mapping }}{{ 'x' is string }}{{ (1, 2) is sequence }}",
            "TrueTrueTrueTrue",
        ),
        ("{{ 'user' in messages | map(attribute='role') | list }}", "True"),
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
        ("a\r\n{% if true %}\r\nb{{ '\r\n' }}{% endif %}\rc\r\n", "a\nb\nc"),
        (
            "{{ none is iterable }}{{ 1 is iterable }}{{ nobody is iterable }}{{ 'x' is iterable }}",
            "FalseFalseTrueTrue",
        ),
        (
            "{{ 'x' is sequence }}{{ {} is sequence }}{{ none is sequence }}{{ 1 is sequence }}",
            "TrueTrueFalseFalse",
        ),
        ("{% generation %}x{%- endgeneration %}", "x"),
        ("{{ tools is none }}{{ documents is none }}{{ bos_token is defined }}", "TrueTrueFalse"),
    ] {
        assert_eq!(render(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn variables_cannot_replace_the_dialogue() {
    let variables = json!({"messages": [], "add_generation_prompt": false, "bos_token": "B"});
    assert_eq!(
        render_with("{{ bos_token }}{{ messages | length }}{{ add_generation_prompt }}", variables)
            .as_deref(),
        Ok("B1True")
    );
}

#[test]
fn the_date_is_todays() {
    let year: i32 = render("{{ strftime_now('%Y') }}").expect("a date").parse().expect("a year");
    assert!((2025..2200).contains(&year), "{year}");
    let date = render("{{ strftime_now('%d %b %Y') }}").expect("a date");
    assert_eq!(date.len(), 11, "{date}");
    assert!(render("{{ strftime_now('%') }}").is_err());
}

#[test]
fn runaway_templates_end() {
    let forever =
        "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a + b %}{% endfor %}{% endfor %}";
    assert!(matches!(render(forever), Err(TemplateError::TooMuch { what: "template steps", .. })));
    let long = "{% set x = 'x' * 1000000 %}{% for a in range(9999) %}{{ x }}{% endfor %}";
    assert!(matches!(render(long), Err(TemplateError::TooMuch { what: "bytes of output", .. })));
    let deep = "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}";
    assert!(matches!(render(deep), Err(TemplateError::Render { .. })));
    assert!(render("{% include 'chat_template' %}").is_err());
    for wide in [
        "{{ 'a\nb' | indent(99999999999) }}",
        "{{ '%99999999999d' | format(1) }}",
        "{{ '%*d' | format(99999999999, 1) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ [1] | tojson(indent=99999999999) }}",
        "{{ range(9223372036854775807, -9223372036854775807, -1) }}",
        "{{ 'x' * 99999999999 }}",
    ] {
        assert!(matches!(render(wide), Err(TemplateError::Render { .. })), "{wide}");
    }
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(matches!(render(&nested), Err(TemplateError::Syntax { .. })));
}

/// Lists in lists recurse when they are printed, compared and dropped, on whatever stack the caller has.
#[test]
fn deep_values_overflow_no_stack() {
    let deep = |rounds: usize, then: &str| {
        let nest = "{% set ns.a = [ns.a] %}{% set ns.b = [ns.b] %}";
        let source = format!(
            "{{% set ns = namespace(a=[], b=[]) %}}{{% for j in range({rounds}) %}}\
             {{% for i in range(9000) %}}{nest}{{% endfor %}}{{% endfor %}}{then}"
        );
        std::thread::Builder::new()
            .stack_size(256 << 10)
            .spawn(move || render(&source))
            .unwrap()
            .join()
            .unwrap()
    };
    let printed = deep(3, "{{ ns.a }}").unwrap();
    assert_eq!(printed.len(), 2 * (27_000 + 1));
    assert_eq!(deep(3, "{{ ns.a == ns.b }}{{ ns.a < ns.b }}").unwrap(), "TrueFalse");
    assert!(deep(3, "{{ ns.a | tojson }}").unwrap_err().to_string().contains("containers inside each other"));
    assert!(matches!(deep(99, ""), Err(TemplateError::TooMuch { what: "template steps", .. })));
}

#[test]
fn long_dialogues_stay_within_the_bounds() {
    let turn =
        [json!({"role": "user", "content": "Why?"}), json!({"role": "assistant", "content": "So.", "n": 1})];
    let messages: Value = std::iter::repeat_n(turn, 2500).flatten().collect();
    for name in ["qwen3", "llama3", "mistral", "glm"] {
        let template = ChatTemplate::new(&read(&format!("chat/{name}.jinja")), no_tokens()).expect(name);
        let variables = json!({"eos_token": "</s>"}).as_object().cloned().expect("a map");
        let input = ChatInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            variables: &variables,
        };
        let text = template.render(&input).expect(name);
        assert_eq!(text.matches("Why?").count(), 2500, "{name}");
    }
}

#[test]
fn templates_of_a_model() {
    let input = |tools| ChatInput {
        messages: const { &Value::Null },
        tools,
        add_generation_prompt: false,
        variables: Box::leak(Box::new(Map::new())),
    };
    let tools = json!([{"type": "function"}]);
    let of = |jinja, config: &Value| ChatTemplate::of_model(jinja, Some(config));
    let list = json!({"eos_token": "</s>", "chat_template": [
        {"name": "default", "template": "plain {{ eos_token }}"}, {"name": "tool_use", "template": "tools"},
    ]});
    let template = of(None, &list).expect("valid").expect("a template");
    assert_eq!(template.render(&input(None)).as_deref(), Ok("plain </s>"));
    assert_eq!(template.render(&input(Some(&tools))).as_deref(), Ok("tools"));

    let file_wins = of(Some("file {{ eos_token }}"), &list).expect("valid").expect("a template");
    assert_eq!(file_wins.render(&input(Some(&tools))).as_deref(), Ok("file </s>"));

    let single = of(None, &json!({"chat_template": "one"})).expect("valid").expect("a template");
    assert_eq!(single.render(&input(None)).as_deref(), Ok("one"));
    let only = of(None, &json!({"chat_template": [{"name": "x", "template": "only"}]}));
    assert_eq!(only.expect("valid").expect("a template").render(&input(None)).as_deref(), Ok("only"));

    assert!(of(None, &json!({"chat_template": null})).expect("valid").is_none());
    assert!(ChatTemplate::of_model(None, None).expect("valid").is_none());
    for odd in [json!(3), json!({"a": 1}), json!([]), json!([{"name": "a"}, {"name": "b", "template": "t"}])]
    {
        let error = of(None, &json!({"chat_template": odd})).expect_err("an odd shape");
        assert!(matches!(error, TemplateError::Config { .. }), "{error:?}");
        assert!(error.to_string().contains("chat_template.jinja"));
    }
}

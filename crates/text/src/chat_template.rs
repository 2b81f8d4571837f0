//! Messages to prompt text, by the Jinja template that comes with a model.
//!
//! - **Oracle**: `transformers`' `apply_chat_template`: blocks trimmed, Python's methods on strings and maps, its
//!   `tojson`, `raise_exception`, `strftime_now`, loop controls and `{% generation %}` marks.
//! - **The template's own complaint is for the client**: [`TemplateError::Raised`] carries the text given to
//!   `raise_exception`; everything else is the operator's business.
//! - **Bounded**: the number of steps ([`MAX_STEPS`]), the nesting and the size of the output ([`MAX_OUTPUT`]).
//! - **On a stack of its own** ([`STACK`]): a step may put a value into a list, and what is done with a list in a list in a
//!   list, dropping it included, recurses. The stack holds as deep a list as all steps can build; of its pages only those
//!   that are touched take memory.
//! - **Lenient on undefined values**, as Jinja is: printing one gives nothing, looking into one is an error.
//!
//! Known gap: Python lists and maps can be changed by methods (`append`, `update`); template values here cannot.

mod error;
mod functions;
mod python;
mod source;
mod tojson;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};

pub use error::TemplateError;
pub use source::TokenStrings;

/// Template instructions in one rendering. A dialogue of a thousand messages takes some hundred thousand.
const MAX_STEPS: u64 = 500_000;

/// Bytes of stack for a rendering. Printing a list takes less than a KiB for each list that it is nested in, comparing and
/// dropping less; there is twice that for every step.
const STACK: usize = 2048 * MAX_STEPS as usize;

/// Bytes of rendered text; above the longest context of any model.
const MAX_OUTPUT: usize = 64 << 20;

/// Nested calls inside a template: a tenth of this many macros, which fits a 2 MiB thread stack.
const MAX_RECURSION: usize = 200;

const DEFAULT: &str = "chat_template";
const TOOL_USE: &str = "chat_template.tool_use";

/// What is rendered: the values a template sees.
#[derive(Clone, Copy, Debug)]
pub struct ChatInput<'a> {
    /// Array of messages in OpenAI's form; key order is kept.
    pub messages: &'a Json,
    /// Array of tools in OpenAI's form, or none.
    pub tools: Option<&'a Json>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables (`enable_thinking`, `date_string`, …). They cannot replace the values above.
    pub variables: &'a Map<String, Json>,
}

/// A compiled chat template; cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    tokens: Arc<TokenStrings>,
    has_tool_use: bool,
}

impl ChatTemplate {
    /// Compiles one template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`], with the line.
    pub fn new(source: &str, tokens: TokenStrings) -> Result<Self, TemplateError> {
        Self::compile(&source::Sources { default: source, tool_use: None }, tokens)
    }

    /// Compiles the template of a model folder; `None` when the model has none.
    ///
    /// The text of `chat_template.jinja` wins over `chat_template` in `tokenizer_config.json`, which is a string or a
    /// list of `{name, template}`: then `default` is taken, and `tool_use` when a request has tools. Token strings
    /// come from `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`], or [`TemplateError::Config`] when `chat_template` has another shape.
    pub fn of_model(
        chat_template_jinja: Option<&str>,
        tokenizer_config: Option<&Json>,
    ) -> Result<Option<Self>, TemplateError> {
        let tokens = tokenizer_config.map(TokenStrings::from_tokenizer_config).unwrap_or_default();
        match source::Sources::of_model(chat_template_jinja, tokenizer_config)? {
            Some(sources) => Self::compile(&sources, tokens).map(Some),
            None => Ok(None),
        }
    }

    fn compile(sources: &source::Sources<'_>, tokens: TokenStrings) -> Result<Self, TemplateError> {
        let mut environment = environment()?;
        let mut add = |name: &'static str, text: &str| {
            let text = source::with_plain_newlines(text);
            let text = source::without_generation_marks(&text).into_owned();
            guarded(|| environment.add_template_owned(name, text).map_err(TemplateError::from))
        };
        add(DEFAULT, sources.default)?;
        if let Some(tool_use) = sources.tool_use {
            add(TOOL_USE, tool_use)?;
        }
        Ok(Self {
            environment: Arc::new(environment),
            tokens: Arc::new(tokens),
            has_tool_use: sources.tool_use.is_some(),
        })
    }

    /// The prompt text of a dialogue.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] when the template rejects the dialogue, [`TemplateError::TooMuch`] when it exceeds a
    /// bound, [`TemplateError::Render`] for any other failure inside the template.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<String, TemplateError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("chat-template".into()).stack_size(STACK);
            let rendering = thread.spawn_scoped(scope, || self.render_here(input));
            let rendering = rendering.map_err(|error| TemplateError::Render {
                line: None,
                reason: format!("no stack of {} MiB for the template: {error}", STACK >> 20),
            })?;
            rendering.join().unwrap_or_else(|_| Err(internal()))
        })
    }

    fn render_here(&self, input: &ChatInput<'_>) -> Result<String, TemplateError> {
        let name = if self.has_tool_use && input.tools.is_some() { TOOL_USE } else { DEFAULT };
        let mut variables: Vec<(&str, Value)> =
            self.tokens.iter().map(|(name, text)| (name, Value::from(text))).collect();
        variables
            .extend(input.variables.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        variables.extend([
            ("messages", Value::from(Serde(input.messages))),
            ("tools", Value::from(Serde(input.tools))),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(input.add_generation_prompt)),
        ]);
        guarded(|| {
            let context = Value::from_pairs(variables);
            let mut output = Output { text: Vec::new(), full: false };
            let result = self
                .environment
                .get_template(name)
                .and_then(|template| template.render_captured_to(context, &mut output).map(|_| ()));
            match result {
                Err(_) if output.full => {
                    Err(TemplateError::TooMuch { what: "bytes of output", limit: MAX_OUTPUT as u64 })
                }
                Err(error) => Err(TemplateError::from(error)),
                Ok(()) => Ok(String::from_utf8_lossy(&output.text).into_owned()),
            }
        })
    }
}

/// An environment with everything that templates written for `transformers` expect.
fn environment() -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_debug(false);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_recursion_limit(MAX_RECURSION);
    python::install(&mut environment);
    functions::install(&mut environment);
    environment.add_filter("tojson", tojson::tojson);
    Ok(environment)
}

/// Rendered text, refused beyond [`MAX_OUTPUT`].
struct Output {
    text: Vec<u8>,
    full: bool,
}

impl std::io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.text.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(std::io::Error::other("output limit"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs template code; its arithmetic is unchecked in places that only odd templates reach.
fn guarded<T>(call: impl FnOnce() -> Result<T, TemplateError>) -> Result<T, TemplateError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(internal()))
}

fn internal() -> TemplateError {
    TemplateError::Render { line: None, reason: "the template engine failed (internal panic)".to_owned() }
}

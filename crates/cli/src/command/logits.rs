//! `bessemer logits`: raw scores for given token ids, to compare with other implementations.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bessemer_engine::{Engine, Reply, Request, Sampling};
use bessemer_weights::DType;
use clap::Args;
use serde::Deserialize;

use crate::model_arguments::{EngineArguments, Loaded};
use crate::output;
use crate::tensor_file::{Entry, TensorFile};

const AFTER_HELP: &str = "\
Examples:
  bessemer logits --model ./my-model --tokens tokens.json --out logits.safetensors --exact
  bessemer logits --model ./my-model --tokens tokens.json --out logits.safetensors --exact --greedy 64

The file of tokens: {\"prompts\": [{\"name\": \"a\", \"ids\": [1, 2, 3]}]}; other keys are ignored.
The output: for each prompt a float32 tensor NAME [length, vocabulary] (row i scores the token after ids[..=i]), and with
--greedy N an int32 tensor NAME.greedy [N], the most probable tokens that go on from the prompt; end tokens do not end it.";

/// Writes the logits after each of the given tokens into a safetensors file.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Logits {
    /// JSON file with the token ids.
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Safetensors file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Go on greedily from each prompt by N tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    greedy: Option<u32>,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Debug, Deserialize)]
struct TokenFile {
    prompts: Vec<NamedPrompt>,
}

#[derive(Debug, Deserialize)]
struct NamedPrompt {
    name: String,
    ids: Vec<u32>,
}

impl Logits {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let prompts = read(&self.tokens)?;
        let Loaded { engine, .. } = self.engine.load(1)?;
        let mut file = TensorFile::create(&self.out, self.entries(&prompts, engine.info().vocab))?;
        for prompt in &prompts {
            let at = || format!("{}: prompt {:?}", self.tokens.display(), prompt.name);
            let logits = engine.logits(&prompt.ids).with_context(at)?;
            file.write(&prompt.name, bytemuck::cast_slice(&logits))?;
            if let Some(count) = self.greedy {
                let tokens = greedy(&engine, prompt.ids.clone(), count as usize).with_context(at)?;
                file.write(&greedy_name(&prompt.name), bytemuck::cast_slice(&tokens))?;
            }
        }
        file.finish()?;
        output::note(&format!("{}: {} prompts", self.out.display(), prompts.len()));
        Ok(())
    }

    fn entries(&self, prompts: &[NamedPrompt], vocab: usize) -> Vec<Entry> {
        let of = |prompt: &NamedPrompt| {
            let shape = vec![prompt.ids.len(), vocab];
            let logits = Entry { name: prompt.name.clone(), dtype: DType::F32, shape };
            let greedy = self.greedy.map(|count| Entry {
                name: greedy_name(&prompt.name),
                dtype: DType::I32,
                shape: vec![count as usize],
            });
            std::iter::once(logits).chain(greedy)
        };
        prompts.iter().flat_map(of).collect()
    }
}

fn greedy_name(prompt: &str) -> String {
    format!("{prompt}.greedy")
}

fn read(path: &Path) -> anyhow::Result<Vec<NamedPrompt>> {
    let text = std::fs::read(path).with_context(|| format!("{}: cannot read it", path.display()))?;
    let file: TokenFile = serde_json::from_slice(&text).with_context(|| {
        let form = r#"{"prompts": [{"name": "a", "ids": [1, 2, 3]}]}"#;
        format!("{}: must have the form {form}, but it has not", path.display())
    })?;
    if file.prompts.is_empty() {
        bail!("{}: prompts must have at least one entry, but it is empty. Add a prompt", path.display());
    }
    let mut names = HashSet::new();
    for NamedPrompt { name, ids } in &file.prompts {
        if !names.insert(name) {
            bail!("{}: names must differ, but {name:?} is there twice. Rename one", path.display());
        }
        if ids.is_empty() {
            bail!("{}: ids of {name:?} must have at least one token, but are empty. Add one", path.display());
        }
    }
    Ok(file.prompts)
}

/// The `count` most probable tokens after `prompt`, each given those before it.
fn greedy(engine: &Engine, prompt: Vec<u32>, count: usize) -> anyhow::Result<Vec<i32>> {
    let room = engine.info().context.saturating_sub(prompt.len());
    if count > room {
        bail!(
            "--greedy: must fit the context behind the prompt, {room} tokens, but it is {count}. Ask for fewer"
        );
    }
    let mut stream = engine.submit(Request {
        prompt,
        sampling: Sampling::greedy(),
        max_tokens: Some(count),
        ignore_end: true,
        ..Request::default()
    })?;
    let mut tokens = Vec::with_capacity(count);
    while let Some(reply) = stream.blocking_next() {
        match reply {
            Reply::Token(token) => tokens.push(i32::try_from(token.id)?),
            Reply::Finished { .. } => return Ok(tokens),
            Reply::Failed(error) => return Err(error.into()),
        }
    }
    bail!("the engine ended without an answer. This is a bug: please report it")
}

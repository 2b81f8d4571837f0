//! `bessemer chat`: a conversation in the terminal, or line by line through a pipe.

mod conversation;

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, bail};
use bessemer_engine::{ChatPrompt, Engine, FinishReason, Prompt, TextReply, TextRequest};
use clap::Args;
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::model_arguments::{EngineArguments, Loaded};
use crate::sampling_arguments::SamplingArguments;
use crate::{failure, output};
use conversation::Conversation;

const AFTER_HELP: &str = "\
Examples:
  bessemer chat
  bessemer chat --model Qwen/Qwen3-0.6B --system \"Answer in one sentence.\"
  printf 'Hello!\\nTell me a story.\\n' | bessemer chat --temperature 0

Commands in the conversation: /reset, /quit, /help. Ctrl-C ends the answer, and at the prompt the program.";

const HELP: &str = "\
/reset  forget the conversation
/quit   end the program (so does the end of the input)
/help   show this
Ctrl-C  end the answer";

/// Talks with the model; every line is a message.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Chat {
    /// The system's message.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of one answer at most [default: until the context is full].
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// What a line asks for.
enum Line<'a> {
    Nothing,
    Say(&'a str),
    Reset,
    Quit,
    Help,
    Unknown(&'a str),
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        match line.trim() {
            "" => Self::Nothing,
            "/reset" => Self::Reset,
            "/quit" | "/exit" => Self::Quit,
            "/help" => Self::Help,
            command if command.starts_with('/') => Self::Unknown(command),
            text => Self::Say(text),
        }
    }
}

impl Chat {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let Loaded { engine, .. } = self.engine.load(1)?;
        if engine.chat_template().is_none() {
            bail!(
                "--model: must have a chat template, but {} has none. Use bessemer generate, or put a \
                 chat_template.jinja into the model's folder",
                engine.info().model
            );
        }
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the conversation cannot be started")?
            .block_on(self.talk(&engine))
    }

    async fn talk(&self, engine: &Engine) -> anyhow::Result<()> {
        let mut lines = lines()?;
        let by_hand = std::io::stdin().is_terminal();
        let mut conversation = Conversation::new(self.system.as_deref());
        if by_hand {
            output::note(&format!("{} · /help for help", engine.info().model));
        }
        loop {
            if by_hand {
                output::print("> ")?;
            }
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = tokio::signal::ctrl_c() => None,
            };
            let Some(line) = line else {
                return if by_hand { output::print("\n") } else { Ok(()) };
            };
            match Line::parse(&line.context("standard input cannot be read as UTF-8 text")?) {
                Line::Nothing => {}
                Line::Quit => return Ok(()),
                Line::Help => output::note(HELP),
                Line::Unknown(command) => output::note(&format!("no command {command}; /help shows all")),
                Line::Reset => {
                    conversation = Conversation::new(self.system.as_deref());
                    output::note("the conversation is forgotten");
                }
                Line::Say(text) => {
                    conversation.say("user", text);
                    match self.answer(engine, &mut conversation).await {
                        Ok(answer) => conversation.say("assistant", &answer),
                        // A person can go on; a script must learn of it.
                        Err(error) if by_hand && !error.is::<output::Closed>() => {
                            conversation.take_back();
                            output::note(&format!("error: {}", failure::message(&error)));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Prints the answer as it comes, and returns it.
    async fn answer(&self, engine: &Engine, conversation: &mut Conversation) -> anyhow::Result<String> {
        let dropped = conversation.fit(engine, self.max_tokens.map(|tokens| tokens as usize))?;
        if dropped > 0 {
            output::note(&format!("(the context is full: the {dropped} oldest messages are forgotten)"));
        }
        let mut stream = engine.generate_text(TextRequest {
            prompt: Prompt::Chat(ChatPrompt::new(conversation.messages())),
            sampling: self.sampling.over(engine.generation_defaults()),
            max_tokens: self.max_tokens.map(|tokens| tokens as usize),
            ..TextRequest::default()
        })?;
        let mut answer = String::new();
        loop {
            let reply = tokio::select! {
                reply = stream.next() => reply,
                _ = tokio::signal::ctrl_c() => {
                    stream.cancel();
                    continue;
                }
            };
            match reply {
                Some(TextReply::Delta { text, .. }) => {
                    output::print(&text)?;
                    answer.push_str(&text);
                }
                Some(TextReply::Finished { reason, .. }) => {
                    output::print("\n")?;
                    match reason {
                        FinishReason::Stop => {}
                        FinishReason::Length => output::note("(cut off: the length is reached)"),
                        FinishReason::Cancelled => output::note("(interrupted)"),
                    }
                    return Ok(answer);
                }
                Some(TextReply::Failed(error)) => return Err(error.into()),
                None => bail!("the engine ended without an answer. This is a bug: please report it"),
            }
        }
    }
}

/// The lines of standard input, read by a thread, because a read from a terminal cannot be broken off.
fn lines() -> anyhow::Result<mpsc::Receiver<std::io::Result<String>>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            for line in std::io::stdin().lock().lines() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })
        .context("the thread that reads standard input cannot be started")?;
    Ok(receiver)
}

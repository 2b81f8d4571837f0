//! The spans of what is generated for a request.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bessemer_engine::Timeline;
use opentelemetry::trace::{Event, Span, SpanBuilder, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};

use super::RequestTrace;
use crate::ErrorKind;

/// Collects what becomes of a request's choices, and writes their spans when it is dropped.
pub struct GenerationTrace {
    request: Arc<RequestTrace>,
    model: Arc<str>,
    choices: Vec<Choice>,
}

struct Choice {
    index: usize,
    timeline: Arc<Timeline>,
    /// When its reader saw its end, and what that was.
    end: Option<(Instant, &'static str)>,
    failure: Option<ErrorKind>,
}

impl GenerationTrace {
    /// Of a request to a model.
    pub fn new(request: Arc<RequestTrace>, model: Arc<str>) -> Self {
        Self { request, model, choices: Vec::new() }
    }

    /// A choice was submitted.
    pub fn submitted(&mut self, index: usize, timeline: Arc<Timeline>) {
        self.choices.push(Choice { index, timeline, end: None, failure: None });
    }

    /// A choice has ended.
    pub fn ended(&mut self, index: usize, reason: &'static str) {
        for choice in self.choices.iter_mut().filter(|choice| choice.index == index) {
            choice.end.get_or_insert((Instant::now(), reason));
        }
    }

    /// What has not ended yet has failed. Only the kind is told: messages may quote what the client sent.
    pub fn failed(&mut self, kind: ErrorKind) {
        for choice in self.choices.iter_mut().filter(|choice| choice.end.is_none()) {
            choice.end = Some((Instant::now(), "error"));
            choice.failure = Some(kind);
        }
    }

    fn write(&self, choice: &Choice) {
        let request = &*self.request;
        let time = |moment: Instant| request.time(moment);
        let timeline = &*choice.timeline;
        let (seen, reason) = choice.end.unwrap_or((Instant::now(), "abort"));
        let end = timeline.ended().map_or(seen, |ended| ended.min(seen));
        let reasons = Value::Array(Array::String(vec![StringValue::from(reason)]));
        let first = timeline.first_token();
        let event = first.map(|first| Event::new("first_token", time(first), Vec::new(), 0));
        let builder = request
            .tracer
            .span_builder("generate")
            .with_start_time(time(timeline.received()))
            .with_events(event.into_iter().collect())
            .with_attributes([
                KeyValue::new("gen_ai.request.model", StringValue::from(self.model.to_string())),
                KeyValue::new("gen_ai.usage.input_tokens", count(timeline.prompt_tokens() as u64)),
                KeyValue::new("gen_ai.usage.output_tokens", count(timeline.tokens())),
                KeyValue::new("gen_ai.response.finish_reasons", reasons),
                KeyValue::new("bessemer.choice", count(choice.index as u64)),
            ]);
        let mut span = request.tracer.build_with_context(builder, &request.context);
        if let Some(kind) = choice.failure {
            span.set_attribute(KeyValue::new("error.type", kind.name()));
            span.set_status(Status::error(kind.name()));
        }
        let inside = Context::new().with_remote_span_context(span.span_context().clone());
        let scheduled = timeline.scheduled();
        let part = |name: &'static str, from: Option<Instant>, to: Option<Instant>| {
            if let Some(from) = from {
                let to = to.unwrap_or(end).max(from);
                self.part(request.tracer.span_builder(name), &inside, time(from), time(to));
            }
        };
        part("queue", Some(timeline.received()), scheduled);
        part("prefill", scheduled, first);
        part("decode", first, timeline.last_token());
        span.end_with_timestamp(time(end.max(timeline.received())));
    }

    fn part(&self, builder: SpanBuilder, inside: &Context, from: SystemTime, to: SystemTime) {
        let mut span = self.request.tracer.build_with_context(builder.with_start_time(from), inside);
        span.end_with_timestamp(to);
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Drop for GenerationTrace {
    fn drop(&mut self) {
        self.choices.iter().for_each(|choice| self.write(choice));
    }
}

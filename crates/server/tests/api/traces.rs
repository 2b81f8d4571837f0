//! Traces as a collector receives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bessemer_server::{ServerOptions, Traces};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Server, engine, read_until};

/// A collector: what was posted to it.
struct Collector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<_>>> = Arc::default();
        let received = requests.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(receive(stream, received.clone()));
            }
        });
        Self { address, requests }
    }

    /// All spans so far, once the server has sent what it has.
    async fn spans(&self, traces: &Traces) -> Vec<Span> {
        let traces = traces.clone();
        tokio::task::spawn_blocking(move || traces.flush()).await.unwrap();
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// A server that sends its traces here.
    async fn server(&self) -> (Server, Traces) {
        let traces = Traces::to(Some(&format!("http://{}", self.address))).unwrap();
        let options = ServerOptions { traces: Some(traces.clone()), ..ServerOptions::default() };
        (Server::with(engine(), options).await, traces)
    }
}

/// Reads requests, one after the other, as a collector does.
async fn receive(mut stream: TcpStream, received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    let mut bytes = Vec::new();
    loop {
        let split = loop {
            if let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break split + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                return;
            }
        };
        let head = String::from_utf8(bytes[..split].to_vec()).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let end = split + length.trim().parse::<usize>().unwrap();
        while bytes.len() < end {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "it broke off");
        }
        received.lock().unwrap().push(ExportTraceServiceRequest::decode(&bytes[split..end]).unwrap());
        bytes.drain(..end);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    }
}

/// Attributes as text.
fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    fn text(value: &AnyValue) -> String {
        match value.value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            Value::ArrayValue(array) => array.values.iter().map(text).collect::<Vec<_>>().join(","),
            other => panic!("{other:?}"),
        }
    }
    attributes.iter().map(|one| (one.key.clone(), text(one.value.as_ref().unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn children<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    let mut own: Vec<_> = spans.iter().filter(|span| span.parent_span_id == parent.span_id).collect();
    own.sort_by_key(|span| span.start_time_unix_nano);
    own
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn a_requests_way_is_told_as_a_part_of_its_clients_trace() {
    let collector = Collector::start().await;
    let (server, traces) = collector.server().await;
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers =
        [("content-type", "application/json"), ("traceparent", parent.as_str()), ("x-request-id", "mine")];
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 5, "n": 2, "temperature": 0, "ignore_eos": true});
    let reply = server.send("POST", "/v1/completions", &headers, body.to_string().as_bytes()).await;
    assert_eq!(reply.status, 200);
    let spans = collector.spans(&traces).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "one trace");
    assert_eq!(spans.len(), 1 + 2 * 4, "{:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());

    let [root] = named(&spans, "POST /v1/completions")[..] else { panic!("no root") };
    assert_eq!((hex(&root.parent_span_id).as_str(), root.kind), (PARENT, 2), "a server's span");
    let told = attributes(&root.attributes);
    assert_eq!(told["bessemer.request_id"], "mine");
    assert_eq!(
        (told["http.route"].as_str(), told["http.response.status_code"].as_str()),
        ("/v1/completions", "200")
    );

    let generations = children(&spans, root);
    assert_eq!(generations.len(), 2);
    let mut choices = Vec::new();
    for generation in generations {
        assert_eq!(generation.name, "generate");
        let told = attributes(&generation.attributes);
        choices.push(told["bessemer.choice"].clone());
        assert_eq!(told["gen_ai.request.model"], engine().info().model);
        assert_eq!(
            (told["gen_ai.usage.input_tokens"].as_str(), told["gen_ai.usage.output_tokens"].as_str()),
            ("3", "5")
        );
        assert_eq!(told["gen_ai.response.finish_reasons"], "length");
        let parts = children(&spans, generation);
        assert_eq!(
            parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(),
            ["queue", "prefill", "decode"]
        );
        // One after the other, without gaps, within the whole.
        let bounds = |span: &Span| (span.start_time_unix_nano, span.end_time_unix_nano);
        assert_eq!(bounds(parts[0]).0, bounds(generation).0);
        assert_eq!(bounds(parts[0]).1, bounds(parts[1]).0);
        assert_eq!(bounds(parts[1]).1, bounds(parts[2]).0);
        assert!(bounds(parts[2]).0 < bounds(parts[2]).1 && bounds(parts[2]).1 <= bounds(generation).1);
        assert!(bounds(root).0 <= bounds(generation).0 && bounds(generation).1 <= bounds(root).1);
        let [event] = &generation.events[..] else { panic!("{:?}", generation.events) };
        assert_eq!((event.name.as_str(), event.time_unix_nano), ("first_token", bounds(parts[1]).1));
    }
    choices.sort_unstable();
    assert_eq!(choices, ["0", "1"]);
    let requests = collector.requests.lock().unwrap();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(attributes(&resource.attributes)["service.name"], "bessemer");
}

#[tokio::test]
async fn traces_begin_here_where_no_client_has_one_and_end_with_the_stream() {
    let collector = Collector::start().await;
    let (server, traces) = collector.server().await;
    server.get("/health").await.ok();
    let body =
        json!({"prompt": "Once", "max_tokens": 600, "stream": true, "temperature": 0, "ignore_eos": true});
    let mut stream = server.open_post("/v1/completions", &body).await;
    read_until(&mut stream, "data: ").await;
    assert_eq!(collector.spans(&traces).await.len(), 0, "the answer has begun and has not ended");
    drop(stream);
    let begin = Instant::now();
    let spans = loop {
        let spans = collector.spans(&traces).await;
        if spans.len() >= 5 || begin.elapsed() > Duration::from_secs(60) {
            break spans;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let [root] = named(&spans, "POST /v1/completions")[..] else { panic!("{spans:?}") };
    assert!(root.parent_span_id.is_empty() && hex(&root.trace_id) != TRACE);
    let [generation] = children(&spans, root)[..] else { panic!("{spans:?}") };
    assert_eq!(attributes(&generation.attributes)["gen_ai.response.finish_reasons"], "abort");

    let wrong = server.post("/v1/completions", &json!({"prompt": 1})).await;
    assert_eq!(wrong.status, 400);
    let spans = collector.spans(&traces).await;
    assert_eq!(spans.len(), 6, "nothing was generated");
    assert_eq!(attributes(&spans[5].attributes)["http.response.status_code"], "400");
    assert_ne!(spans[5].trace_id, spans[0].trace_id);
    assert!(named(&spans, "GET /health").is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_sample_is_not_traced() {
    let collector = Collector::start().await;
    let (server, traces) = collector.server().await;
    for (flags, spans) in [("00", 0), ("01", 5)] {
        let parent = format!("00-{TRACE}-{PARENT}-{flags}");
        let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
        let body = json!({"prompt": "Once", "max_tokens": 3, "ignore_eos": true}).to_string();
        assert_eq!(server.send("POST", "/v1/completions", &headers, body.as_bytes()).await.status, 200);
        assert_eq!(collector.spans(&traces).await.len(), spans, "flags {flags}");
    }
    // What is no traceparent begins a trace here, and fails nothing.
    let headers = [("content-type", "application/json"), ("traceparent", "00-zz-1-01")];
    let body = json!({"prompt": "Once", "max_tokens": 3, "ignore_eos": true}).to_string();
    assert_eq!(server.send("POST", "/v1/completions", &headers, body.as_bytes()).await.status, 200);
    assert_eq!(collector.spans(&traces).await.len(), 10);
}

/// One that is not there, and one that takes what it is sent and never answers.
#[tokio::test]
async fn a_collector_that_is_down_slows_and_fails_nobody() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let closed = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    // 33 spans each.
    let body = json!({"prompt": "Once", "max_tokens": 1, "n": 8, "temperature": 1, "ignore_eos": true});
    let time = async |server: &Server, requests: usize| {
        let begin = Instant::now();
        for _ in 0..requests {
            assert_eq!(server.post("/v1/completions", &body).await.status, 200);
        }
        begin.elapsed()
    };
    let untraced = Server::start().await;
    time(&untraced, 10).await;
    for address in [silent.local_addr().unwrap(), closed] {
        let traces = Traces::to(Some(&format!("http://{address}"))).unwrap();
        let options = ServerOptions { traces: Some(traces.clone()), ..ServerOptions::default() };
        let server = Server::with(engine(), options).await;
        // More spans than the queue holds, so that it is full in the end.
        let (mut plain, mut traced) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..7 {
            plain += time(&untraced, 10).await;
            traced += time(&server, 10).await;
        }
        assert!(traced < plain * 2 + Duration::from_secs(2), "{traced:?} for {plain:?} without");
        let begin = Instant::now();
        tokio::task::spawn_blocking(move || traces.shutdown()).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}

//! What serving systems tell, under the names that vLLM's dashboards and the routers made for it ask for, and the seeds'
//! times to the first token.

use bessemer_engine::{EngineStats, Outcome, ServingStatistics};

use super::super::text_format::{Number, Page};

/// The names of vLLM, for one model.
pub fn serving(page: &mut Page, model: &str, engine: &EngineStats, serving: &ServingStatistics) {
    let model = [("model_name", model)];
    let usage = engine.kv_blocks_used as f64 / engine.kv_blocks_total.max(1) as f64;
    for (name, help, value) in [
        ("vllm:num_requests_running", "Sequences running.", engine.running as f64),
        ("vllm:num_requests_waiting", "Requests waiting.", engine.waiting as f64),
        ("vllm:kv_cache_usage_perc", "Share of the KV cache's blocks in use, 0 to 1.", usage),
        ("vllm:gpu_cache_usage_perc", "The same under its older name, which some routers ask for.", usage),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &model, Number(value));
    }
    for (name, help, value) in [
        ("vllm:prompt_tokens_total", "Tokens of prompts.", engine.prompt_tokens),
        ("vllm:generation_tokens_total", "Tokens generated.", engine.generated_tokens),
        ("vllm:num_preemptions_total", "Times a running sequence lost its blocks.", engine.preemptions),
        (
            "vllm:prefix_cache_queries_total",
            "Tokens of prompts that were looked up in the prefix cache.",
            engine.prefix_cache_queries,
        ),
        ("vllm:prefix_cache_hits_total", "Tokens of prompts that were there.", engine.prefix_cache_hits),
    ] {
        page.family(name, "counter", help);
        page.sample(name, &model, value);
    }
    page.family("vllm:request_success_total", "counter", "Requests that ended, by how.");
    for (outcome, count) in Outcome::ALL.into_iter().zip(serving.outcomes) {
        let labels = [model[0], ("finished_reason", outcome.name())];
        page.sample("vllm:request_success_total", &labels, count);
    }
    for (name, help, values) in [
        ("vllm:time_to_first_token_seconds", "From a request to its first token.", &serving.first_token),
        (
            "vllm:inter_token_latency_seconds",
            "From a token to the next of its request.",
            &serving.between_tokens,
        ),
        ("vllm:time_per_output_token_seconds", "The same under its older name.", &serving.between_tokens),
        (
            "vllm:request_time_per_output_token_seconds",
            "Mean time between the tokens of a complete request.",
            &serving.per_token,
        ),
        ("vllm:e2e_request_latency_seconds", "From a request to its complete end.", &serving.whole),
        ("vllm:request_queue_time_seconds", "From a request to its first row on the device.", &serving.queue),
        ("vllm:request_prefill_time_seconds", "From the first row to the first token.", &serving.prefill),
        ("vllm:request_decode_time_seconds", "From the first token to the last.", &serving.decode),
        ("vllm:request_inference_time_seconds", "From the first row to the last token.", &serving.inference),
        ("vllm:request_prompt_tokens", "Tokens of the prompt of a complete request.", &serving.prompt_tokens),
        (
            "vllm:request_generation_tokens",
            "Tokens generated for a complete request.",
            &serving.generated_tokens,
        ),
    ] {
        page.histogram(name, help, &model, values);
    }
}

/// Times to the first token, by whether the transfer queue worked.
pub fn first_tokens(page: &mut Page, serving: &ServingStatistics) {
    for (name, help, values) in [
        (
            "ttft_with_blit_ms",
            "Milliseconds to the first token, where it came with the transfer queue active.",
            &serving.first_token_with_blit,
        ),
        ("ttft_without_blit_ms", "The same with it off.", &serving.first_token_without_blit),
    ] {
        page.histogram(name, help, &[], values);
    }
}

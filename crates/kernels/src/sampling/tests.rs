//! Against the oracle, against plain definitions in f64, and against chance.

use super::row::sample;
use super::{Lists, MAX_LOGPROBS, NO_LOGPROBS, RowParams, SampleOut, distribution};
use crate::Isa;
use crate::golden::{Golden, Random};

fn token(logits: &[f32], params: &RowParams, lists: Lists<'_>) -> u32 {
    let tokens: Vec<u32> = Isa::all_available()
        .map(|isa| sample(isa, logits, params, lists, &mut [0; MAX_LOGPROBS], &mut [0.0; MAX_LOGPROBS]).token)
        .collect();
    assert!(tokens.iter().all(|token| token == &tokens[0]), "{tokens:?}");
    tokens[0]
}

#[test]
fn agrees_with_the_oracle() {
    let golden = Golden::open("sampling");
    for case in golden.cases() {
        let name = case["name"].as_str().unwrap();
        let list = |key: &str| case[key].as_array().unwrap().iter();
        let ids = |key: &str| list(key).map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
        let logits: Vec<f32> = list("logits").map(|x| x.as_f64().unwrap() as f32).collect();
        let mut history = ids("prompt_ids");
        let prompt_len = history.len() as u32;
        history.extend(ids("output_ids"));
        let history_len = history.len() as u32;
        let mut params = RowParams { temperature: 1.0, history_len, prompt_len, ..RowParams::default() };
        let mut min_p_first = false;
        for step in list("steps") {
            let value = step[1].as_f64().unwrap() as f32;
            match step[0].as_str().unwrap() {
                "temperature" => {
                    params.temperature = value;
                    // Here shares are taken after the temperature; taken before it, they are those to the power 1 / T.
                    if min_p_first {
                        params.min_p = params.min_p.powf(1.0 / value);
                    }
                }
                "top_k" => params.top_k = value as u32,
                "top_p" => params.top_p = value,
                "min_p" => (params.min_p, min_p_first) = (value, true),
                "repetition_penalty" => params.repetition_penalty = value,
                "presence_penalty" => params.presence_penalty = value,
                "frequency_penalty" => params.frequency_penalty = value,
                other => panic!("{other}"),
            }
        }
        let ours = distribution(&logits, &params, Lists { history: &history, ..Lists::default() });
        // Below e^-87 a weight is 0: where the oracle keeps such a token, its probability rounds to 0 all the same.
        let kept = ids("kept");
        for (id, (ours, theirs)) in (0..).zip(ours.iter().zip(list("probabilities"))) {
            let may_be_kept = kept.contains(&id);
            let must_be_kept = may_be_kept && theirs.as_f64().unwrap() > 0.0;
            assert!(if *ours > 0.0 { may_be_kept } else { !must_be_kept }, "{name}: token {id}");
        }
        for (ours, theirs) in ours.iter().zip(list("probabilities")) {
            assert!((ours - theirs.as_f64().unwrap()).abs() <= 1e-6, "{name}: {ours} is not {theirs}");
        }
    }
}

/// `top_k`, `top_p` and `min_p` by full sort.
fn plain_distribution(logits: &[f32], params: &RowParams) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    if params.top_k > 0 {
        order.truncate(params.top_k as usize);
    }
    let max = f64::from(logits[order[0]]);
    let weight = |&id: &usize| ((f64::from(logits[id]) - max) / f64::from(params.temperature)).exp();
    if params.top_p < 1.0 {
        let total: f64 = order.iter().map(weight).sum();
        let mut sum = 0.0;
        let reached = order.iter().position(|id| {
            sum += weight(id);
            sum >= f64::from(params.top_p) * total
        });
        order.truncate(reached.unwrap() + 1);
    }
    order.retain(|id| weight(id) >= f64::from(params.min_p));
    let total: f64 = order.iter().map(weight).sum();
    let mut out = vec![0.0; logits.len()];
    for id in order {
        out[id] = weight(&id) / total;
    }
    out
}

#[test]
fn filters_agree_with_a_full_sort() {
    let mut random = Random(9);
    for vocab in [1, 5, 127, 129, 5000, 30_001] {
        for spread in [0.01, 1.0, 8.0] {
            let logits: Vec<f32> = random.normal(vocab).iter().map(|x| x * spread).collect();
            for (temperature, top_k, top_p, min_p) in [
                (1.0, 0, 1.0, 0.0),
                (0.7, 20, 0.8, 0.0),
                (1.0, 0, 0.9, 0.0),
                (1.3, 0, 0.4003, 0.001),
                (0.2, 1, 1.0, 0.0),
                (2.0, 300, 1.0, 0.02),
                (1.0, 0, 1.0, 0.1),
                (1.0, 4000, 0.95, 0.0),
                (1e-9, 0, 1.0, 0.0),
            ] {
                let params = RowParams { temperature, top_k, top_p, min_p, ..RowParams::default() };
                let ours = distribution(&logits, &params, Lists::default());
                let plain = plain_distribution(&logits, &params);
                // One token at the edge of top_p may fall to the other side by rounding: it moves all by its share.
                let off: f64 = ours.iter().zip(&plain).map(|(a, b)| (a - b).abs()).sum();
                let edge = if top_p < 1.0 {
                    plain.iter().copied().filter(|p| *p > 0.0).fold(1.0, f64::min)
                } else {
                    0.0
                };
                assert!(off < 1e-5 + 3.0 * edge.min(1e-3), "{vocab} {spread} {params:?}: off by {off}");
            }
        }
    }
}

#[test]
fn samples_follow_the_distribution() {
    let mut random = Random(4);
    let logits: Vec<f32> = random.normal(700).iter().map(|x| 2.0 * x).collect();
    for (i, (top_k, top_p, min_p)) in
        [(0, 1.0, 0.0), (40, 1.0, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.05)].into_iter().enumerate()
    {
        let mut params =
            RowParams { temperature: 1.0, top_k, top_p, min_p, seed: 77 + i as u64, ..RowParams::default() };
        let expected = distribution(&logits, &params, Lists::default());
        const DRAWS: u32 = 40_000;
        let mut counts = vec![0.0; logits.len()];
        for step in 0..DRAWS {
            params.step = step;
            let out = sample(Isa::detect(), &logits, &params, Lists::default(), &mut [0; 20], &mut [0.0; 20]);
            counts[out.token as usize] += 1.0;
        }
        // Tokens expected fewer than ten times share a bin.
        let (mut chi, mut bins, mut rare) = (0.0, 0, (0.0, 0.0));
        for (count, p) in counts.iter().zip(&expected) {
            let expected = p * f64::from(DRAWS);
            if expected >= 10.0 {
                chi += (count - expected) * (count - expected) / expected;
                bins += 1;
            } else {
                rare = (rare.0 + count, rare.1 + expected);
            }
        }
        if rare.1 >= 10.0 {
            chi += (rare.0 - rare.1) * (rare.0 - rare.1) / rare.1;
            bins += 1;
        } else {
            assert!(rare.0 <= 30.0);
        }
        // Mean n, standard deviation √(2n); four of them are one in tens of thousands, and the seeds are fixed.
        let n = f64::from(bins - 1);
        assert!(
            (chi - n).abs() < 4.0 * (2.0 * n).sqrt(),
            "case {i}: chi-square {chi} for {n} degrees of freedom"
        );
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let greedy = RowParams::default();
    let mut logits = vec![-3.0; 1000];
    assert_eq!(token(&logits, &greedy, Lists::default()), 0);
    for at in [999, 640, 511, 130] {
        logits[at] = 2.5;
        assert_eq!(token(&logits, &greedy, Lists::default()), at as u32);
    }
    let nan = RowParams { temperature: f32::NAN, ..greedy };
    assert_eq!(token(&logits, &nan, Lists::default()), 130);
}

#[test]
fn what_is_not_a_number_is_never_sampled() {
    let hot = RowParams { temperature: 1.0, logprobs: 3, ..RowParams::default() };
    let filtered = RowParams { top_k: 2, top_p: 0.9, min_p: 0.1, ..hot };
    for params in [RowParams::default(), hot, filtered] {
        for nothing in [f32::NAN, f32::NEG_INFINITY] {
            let mut logits = vec![nothing; 300];
            assert_eq!(token(&logits, &params, Lists::default()), 0);
            logits[299] = -5.0;
            assert_eq!(token(&logits, &params, Lists::default()), 299);
        }
        let mut logits = vec![1.0; 300];
        logits[17] = f32::INFINITY;
        assert_eq!(token(&logits, &params, Lists::default()), 17);
        assert_eq!(token(&[], &params, Lists::default()), 0);
    }
}

#[test]
fn bias_mask_and_history_reach_their_tokens() {
    let logits: Vec<f32> = (0..100).map(|i| i as f32 * 0.1).collect();
    let lists = Lists {
        history: &[5, 99, 99, 7_000_000, 98],
        bias_ids: &[1, 3, 200],
        bias_values: &[9.0, 100.0, 1.0],
        // 0..32 none, 32..64: 40 and 41, 64..96 all; the rest lies beyond.
        masks: &[7, 0, 1 << 8 | 1 << 9, u32::MAX],
        mask_words: 3,
    };
    let greedy = RowParams::default();
    assert_eq!(token(&logits, &RowParams { mask_start: 1, ..greedy }, lists), 95);
    assert_eq!(token(&logits, &RowParams { mask_start: 4, ..greedy }, lists), 0);
    assert_eq!(token(&logits, &RowParams { bias_start: 1, bias_len: 2, ..greedy }, lists), 3);
    assert_eq!(token(&logits, &RowParams { bias_start: u32::MAX, bias_len: u32::MAX, ..greedy }, lists), 99);
    let output = RowParams { history_start: 1, history_len: 4, ..greedy };
    assert_eq!(token(&logits, &RowParams { frequency_penalty: 0.07, history_len: 3, ..output }, lists), 98);
    assert_eq!(token(&logits, &RowParams { presence_penalty: 0.25, ..output }, lists), 97);
    assert_eq!(token(&logits, &RowParams { presence_penalty: 0.25, prompt_len: 4, ..output }, lists), 99);
    assert_eq!(token(&logits, &RowParams { repetition_penalty: 2.0, prompt_len: 4, ..output }, lists), 97);
}

#[test]
fn logprobs_are_those_of_the_raw_logits() {
    let mut random = Random(6);
    let logits = random.normal(1000);
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let mut order: Vec<usize> = (0..1000).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    for isa in Isa::all_available() {
        let (mut ids, mut logprobs) = ([0; MAX_LOGPROBS], [0.0; MAX_LOGPROBS]);
        let lists = Lists { bias_ids: &[321], bias_values: &[100.0], ..Lists::default() };
        let params = RowParams { temperature: 0.3, bias_len: 1, logprobs: 7, ..RowParams::default() };
        let SampleOut { token, logprob } = sample(isa, &logits, &params, lists, &mut ids, &mut logprobs);
        assert_eq!(token, 321);
        assert!((f64::from(logprob) - (f64::from(logits[321]) - total.ln())).abs() < 1e-5);
        for (i, (&id, &logprob)) in ids.iter().zip(&logprobs).enumerate() {
            if i < 7 {
                assert_eq!(id, order[i] as u32);
                assert!((f64::from(logprob) - (f64::from(logits[order[i]]) - total.ln())).abs() < 1e-5);
            } else {
                assert_eq!((id, logprob), (u32::MAX, f32::NEG_INFINITY));
            }
        }
        let params = RowParams { logprobs: NO_LOGPROBS, ..params };
        assert_eq!(sample(isa, &logits, &params, lists, &mut ids, &mut logprobs).logprob, 0.0);
    }
}

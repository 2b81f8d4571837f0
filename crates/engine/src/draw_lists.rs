//! What a step's draws read beside the logits: sampling parameters, histories, biases, and the tokens of the step before
//! that only the device knows.

use bessemer_hal::Slice;
use bessemer_kernels::feed::{Feed, NOT_FED};
use bessemer_kernels::sampling::RowParams;
use bessemer_runtime::{Field, PlacedData, StepData};

use crate::batch::{Draw, StepInput};
use crate::{Result, Sampling};

/// Where the sampler's lists lie in the data of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListLayout {
    pub(crate) params: Field,
    pub(crate) history: Field,
    pub(crate) bias_ids: Field,
    pub(crate) bias_values: Field,
    pub(crate) masks: Field,
    /// Where there are tokens that only the device knows.
    pub(crate) feeding: Option<Feeding>,
}

/// Which unknown tokens go where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feeding {
    /// Into the rows.
    pub(crate) rows: FeedLayout,
    /// Into the histories, where there are any.
    pub(crate) history: Option<FeedLayout>,
}

/// Pairs of a draw and a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedLayout {
    from: Field,
    to: Field,
}

impl FeedLayout {
    /// `pairs`: which draw goes where; room for `capacity`.
    fn new(pairs: impl Iterator<Item = (u32, u32)>, capacity: usize, data: &mut StepData) -> Self {
        let (mut from, mut to): (Vec<_>, Vec<_>) = pairs.unzip();
        from.resize(capacity, NOT_FED);
        to.resize(capacity, 0);
        Self { from: data.push(&from, capacity), to: data.push(&to, capacity) }
    }

    /// The operation that fills `n` entries of `ids` at most.
    pub(crate) fn on(self, placed: &PlacedData, drawn: &Slice, ids: Slice, n: usize) -> Result<Feed> {
        Ok(Feed { drawn: drawn.clone(), from: placed.slice(self.from)?, to: placed.slice(self.to)?, ids, n })
    }
}

impl ListLayout {
    /// Adds the lists to the data of the step.
    pub(crate) fn new(step: &StepInput<'_>, data: &mut StepData) -> Self {
        let lists = Lists::new(&step.draws);
        // A history grows by a token a step: room by powers of two keeps the layout for many steps.
        let room = |list: usize| if list == 0 { 0 } else { list.next_power_of_two() };
        let feeding = (!step.fed.is_empty()).then(|| Feeding {
            rows: FeedLayout::new(
                step.fed.iter().map(|fed| (fed.draw, fed.row)),
                step.batch.input_ids.len(),
                data,
            ),
            history: (!lists.history.is_empty())
                .then(|| FeedLayout::new(lists.newest.iter().copied(), step.draws.len(), data)),
        });
        Self {
            params: data.push(&lists.params, lists.params.len()),
            history: data.push(&lists.history, room(lists.history.len())),
            bias_ids: data.push(&lists.bias_ids, room(lists.bias_ids.len())),
            bias_values: data.push(&lists.bias_values, room(lists.bias_values.len())),
            masks: data.push::<u32>(&[], 0),
            feeding,
        }
    }
}

/// What the sampler reads beside the logits.
#[derive(Debug, Default)]
struct Lists {
    params: Vec<RowParams>,
    history: Vec<u32>,
    /// Draws of the step before that are the newest of a history, and where they belong.
    newest: Vec<(u32, u32)>,
    bias_ids: Vec<u32>,
    bias_values: Vec<f32>,
}

impl Lists {
    fn new(draws: &[Draw<'_>]) -> Self {
        let known = draws.iter().filter(|draw| penalises(draw.sampling));
        let known = known.map(|draw| draw.prompt.len() + draw.generated.len()).sum();
        let mut lists = Self { history: Vec::with_capacity(known), ..Self::default() };
        draws.iter().for_each(|draw| lists.push(draw));
        lists
    }

    fn push(&mut self, draw: &Draw<'_>) {
        let Draw { sampling, prompt, generated, .. } = draw;
        let mut params = RowParams {
            seed: draw.seed,
            step: generated.len() as u32,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            bias_start: self.bias_ids.len() as u32,
            bias_len: sampling.logit_bias.len() as u32,
            logprobs: sampling.top_logprobs,
            ..RowParams::default()
        };
        if penalises(sampling) {
            params.history_start = self.history.len() as u32;
            params.history_len = (prompt.len() + generated.len()) as u32;
            params.prompt_len = prompt.len() as u32;
            self.history.extend_from_slice(prompt);
            self.history.extend_from_slice(generated);
            let last = (self.history.len() as u32).saturating_sub(1);
            self.newest.extend(draw.fed.map(|fed| (fed, last)));
        }
        self.params.push(params);
        self.bias_ids.extend(sampling.logit_bias.iter().map(|(id, _)| *id));
        self.bias_values.extend(sampling.logit_bias.iter().map(|(_, value)| *value));
    }
}

/// Whether a draw depends on the history.
fn penalises(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0
        || sampling.presence_penalty != 0.0
        || sampling.frequency_penalty != 0.0
}

//! Recorded commands: a plan that is encoded anew at every submission, because Metal's command buffers run once.
//!
//! - Everything is *checked while it is recorded*, hazards included: buffers are not tracked by the system, and no
//!   validation layer finds a missing barrier. Encoding then needs no check.
//! - Launches and copies need different encoders. Between two barriers commands have no order, so a stage becomes at
//!   most one *pass* of launches and one of copies, and launches of several stages share a pass.
//! - Passes are cut into *parts*, one command buffer each, so that the GPU starts while the rest is encoded, and so that
//!   no command buffer runs long enough to hold up the display or to be taken for a hang.

use std::ops::Range;
use std::sync::Arc;

use crate::cpu::extent::{Extent, ExtentSet};

/// How much goes into one command buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartLimits {
    /// Launches and copies.
    pub(crate) commands: usize,
    /// Bytes that they bind.
    pub(crate) bytes: u64,
}

/// Parts of a plan at most; the limits grow where there would be more. Far below what a queue holds.
pub(crate) const MAX_PARTS: usize = 64;

/// The first part is smaller by this factor: the GPU idles while it is encoded.
const FIRST_PART: usize = 8;

/// What a launch is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) bindings: u32,
    pub(crate) written: u32,
    pub(crate) params: u32,
    pub(crate) max_groups: [u32; 3],
    /// Of the offset of a binding in its buffer.
    pub(crate) alignment: u64,
}

/// A slice of a buffer, and its bytes among all bytes of the device.
#[derive(Clone, Debug)]
pub(crate) struct Bound<B> {
    pub(crate) buffer: B,
    pub(crate) label: Arc<str>,
    pub(crate) offset: u64,
    pub(crate) extent: Extent,
    pub(crate) writes: bool,
    /// The buffer may not be written.
    pub(crate) read_only: bool,
}

impl<B> Bound<B> {
    fn size(&self) -> u64 {
        self.extent.end - self.extent.start
    }
}

/// One launch.
#[derive(Debug)]
pub(crate) struct Launch<P> {
    pub(crate) pipeline: P,
    pub(crate) bindings: Range<usize>,
    pub(crate) params: Range<usize>,
    pub(crate) groups: [u32; 3],
    /// It sees the writes of everything before it in its pass.
    pub(crate) barrier: bool,
}

/// Commands for one encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Of [`Plan::launches`].
    Launches(Range<usize>),
    /// Pairs of [`Plan::copies`]; they have no order among them.
    Copies(Range<usize>),
}

/// Bytes that commands read and write.
#[derive(Debug, Default)]
pub(crate) struct Footprint {
    read: ExtentSet,
    written: ExtentSet,
}

impl Footprint {
    pub(crate) fn add(&mut self, extent: Extent, writes: bool) {
        if writes { &mut self.written } else { &mut self.read }.insert(extent);
    }

    /// Whether an access to these bytes must have an order with it.
    pub(crate) fn conflicts_with(&self, bytes: Extent, writes: bool) -> bool {
        self.written.overlaps(bytes) || (writes && self.read.overlaps(bytes))
    }

    fn clear(&mut self) {
        self.read.clear();
        self.written.clear();
    }
}

/// What a command buffer of this crate is behind its handle, over pipelines `P` and buffers `B`.
#[derive(Debug)]
pub(crate) struct Plan<P, B> {
    pub(crate) device: u64,
    pub(crate) label: Arc<str>,
    pub(crate) launches: Vec<Launch<P>>,
    /// From and to.
    pub(crate) copies: Vec<[Bound<B>; 2]>,
    pub(crate) bounds: Vec<Bound<B>>,
    pub(crate) params: Vec<u8>,
    pub(crate) footprint: Footprint,
    /// At least one, which may be empty.
    pub(crate) parts: Vec<Vec<Pass>>,
}

/// Records a plan.
#[derive(Debug)]
pub(crate) struct Planner<P, B> {
    plan: Plan<P, B>,
    passes: Vec<Pass>,
    /// Of the stage since the last barrier.
    stage: Footprint,
    first_launch: usize,
    first_copy: usize,
    /// What the commands of the stage use, for refusals.
    stage_uses: Vec<Use>,
    commands: usize,
}

/// Bytes that a command uses.
#[derive(Debug)]
struct Use {
    command: usize,
    /// Of the pipeline; `None` for a copy.
    name: Option<&'static str>,
    extent: Extent,
    writes: bool,
}

impl std::fmt::Display for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name {
            Some(name) => write!(f, "command {} (dispatch of '{name}')", self.command),
            None => write!(f, "command {} (copy)", self.command),
        }
    }
}

impl<P, B> Planner<P, B> {
    pub(crate) fn new(device: u64, label: &str) -> Self {
        let plan = Plan {
            device,
            label: label.into(),
            launches: Vec::new(),
            copies: Vec::new(),
            bounds: Vec::new(),
            params: Vec::new(),
            footprint: Footprint::default(),
            parts: Vec::new(),
        };
        Self {
            plan,
            passes: Vec::new(),
            stage: Footprint::default(),
            first_launch: 0,
            first_copy: 0,
            stage_uses: Vec::new(),
            commands: 0,
        }
    }

    pub(crate) fn label(&self) -> &str {
        &self.plan.label
    }

    /// Records a launch of the pipeline called `name`. A refused one leaves the recording as it was.
    pub(crate) fn launch(
        &mut self,
        name: &'static str,
        pipeline: P,
        rules: &Rules,
        bindings: Vec<Bound<B>>,
        params: &[u8],
        groups: [u32; 3],
    ) -> Result<(), String> {
        check_launch(rules, &bindings, params, groups)?;
        self.check_hazards(bindings.iter())?;
        self.note(Some(name), bindings.iter());
        if groups.contains(&0) {
            return Ok(());
        }
        let plan = &mut self.plan;
        let (first_bound, first_param) = (plan.bounds.len(), plan.params.len());
        plan.bounds.extend(bindings);
        plan.params.extend_from_slice(params);
        plan.launches.push(Launch {
            pipeline,
            bindings: first_bound..plan.bounds.len(),
            params: first_param..plan.params.len(),
            groups,
            barrier: false,
        });
        Ok(())
    }

    /// Records a copy. A refused one leaves the recording as it was.
    pub(crate) fn copy(&mut self, from: Bound<B>, to: Bound<B>) -> Result<(), String> {
        if from.size() != to.size() {
            return Err(format!("{} to {}: sizes must be equal", place(&from), place(&to)));
        }
        if to.read_only {
            return Err(format!("buffer '{}' wraps memory of the host that is only read", to.label));
        }
        if from.extent.overlaps(to.extent) {
            return Err(format!("{} overlaps {}", place(&from), place(&to)));
        }
        let pair = [Bound { writes: false, ..from }, Bound { writes: true, ..to }];
        self.check_hazards(pair.iter())?;
        self.note(None, pair.iter());
        if pair[0].size() > 0 {
            self.plan.copies.push(pair);
        }
        Ok(())
    }

    fn check_hazards<'a>(&self, bounds: impl Iterator<Item = &'a Bound<B>>) -> Result<(), String>
    where
        B: 'a,
    {
        for (index, bound) in bounds.enumerate() {
            if self.stage.conflicts_with(bound.extent, bound.writes) {
                let conflicts = |u: &&Use| (u.writes || bound.writes) && u.extent.overlaps(bound.extent);
                let earlier = self.stage_uses.iter().find(conflicts);
                let earlier = earlier.map_or_else(|| "an earlier command".into(), Use::to_string);
                return Err(format!(
                    "command {}: binding {index} ({}) conflicts with {earlier}; record a barrier between them",
                    self.commands,
                    place(bound)
                ));
            }
        }
        Ok(())
    }

    fn note<'a>(&mut self, name: Option<&'static str>, bounds: impl Iterator<Item = &'a Bound<B>>)
    where
        B: 'a,
    {
        let command = self.commands;
        self.commands += 1;
        for &Bound { extent, writes, .. } in bounds {
            self.stage.add(extent, writes);
            self.plan.footprint.add(extent, writes);
            self.stage_uses.push(Use { command, name, extent, writes });
        }
    }

    /// Ends a stage.
    pub(crate) fn barrier(&mut self) {
        let launches = self.first_launch..self.plan.launches.len();
        let copies = self.first_copy..self.plan.copies.len();
        (self.first_launch, self.first_copy) = (launches.end, copies.end);
        if !launches.is_empty() {
            match self.passes.last_mut() {
                Some(Pass::Launches(pass)) => {
                    self.plan.launches[launches.start].barrier = true;
                    pass.end = launches.end;
                }
                _ => self.passes.push(Pass::Launches(launches)),
            }
        }
        if !copies.is_empty() {
            self.passes.push(Pass::Copies(copies));
        }
        self.stage.clear();
        self.stage_uses.clear();
    }

    pub(crate) fn finish(mut self, limits: PartLimits) -> Plan<P, B> {
        self.barrier();
        let total = self.plan.launches.len() + self.plan.copies.len();
        let mut limits = PartLimits { commands: limits.commands.max(1), bytes: limits.bytes.max(1) };
        loop {
            self.plan.parts = self.plan.parts(&self.passes, limits);
            // Without the doubling of bytes a single huge launch per part would never fit.
            if self.plan.parts.len() <= MAX_PARTS || limits.commands > total {
                return self.plan;
            }
            limits = PartLimits { commands: limits.commands * 2, bytes: limits.bytes.saturating_mul(2) };
        }
    }
}

impl<P, B> Plan<P, B> {
    fn parts(&self, passes: &[Pass], limits: PartLimits) -> Vec<Vec<Pass>> {
        let mut parts = vec![Vec::new()];
        let (mut commands, mut bytes) = (0, 0_u64);
        let mut room = (limits.commands / FIRST_PART).max(1);
        for pass in passes {
            let (range, copies) = match pass {
                Pass::Launches(range) => (range.clone(), false),
                Pass::Copies(range) => (range.clone(), true),
            };
            let wrap = |range| if copies { Pass::Copies(range) } else { Pass::Launches(range) };
            let mut first = range.start;
            for at in range.clone() {
                let cost = if copies { self.copies[at][0].size() } else { self.launch_bytes(at) };
                if commands > 0 && (commands >= room || bytes.saturating_add(cost) > limits.bytes) {
                    if first < at {
                        push(&mut parts, wrap(first..at));
                    }
                    parts.push(Vec::new());
                    (first, commands, bytes, room) = (at, 0, 0, limits.commands);
                }
                commands += 1;
                bytes = bytes.saturating_add(cost);
            }
            push(&mut parts, wrap(first..range.end));
        }
        parts
    }

    fn launch_bytes(&self, at: usize) -> u64 {
        self.bounds[self.launches[at].bindings.clone()].iter().map(Bound::size).fold(0, u64::saturating_add)
    }
}

fn push(parts: &mut [Vec<Pass>], pass: Pass) {
    if let Some(part) = parts.last_mut() {
        part.push(pass);
    }
}

fn check_launch<B>(
    rules: &Rules,
    bindings: &[Bound<B>],
    params: &[u8],
    groups: [u32; 3],
) -> Result<(), String> {
    if bindings.len() != rules.bindings as usize {
        return Err(format!("{} bindings; the shader has {}", bindings.len(), rules.bindings));
    }
    if params.len() != rules.params as usize {
        return Err(format!("{} bytes of parameters; the shader has {}", params.len(), rules.params));
    }
    if (0..3).any(|axis| groups[axis] > rules.max_groups[axis]) {
        return Err(format!("{groups:?} workgroups; the device takes {:?}", rules.max_groups));
    }
    for (index, bound) in bindings.iter().enumerate() {
        let refused = |rule: String| Err(format!("binding {index} (buffer '{}'): {rule}", bound.label));
        if rules.written & (1 << index) != 0 && !bound.writes {
            return refused("the shader writes it, and the launch only reads it; bind it as written".into());
        }
        if bound.writes && bound.read_only {
            return refused("it wraps memory of the host that is only read".into());
        }
        if !bound.offset.is_multiple_of(rules.alignment) {
            return refused(format!("offset {} is not a multiple of {}", bound.offset, rules.alignment));
        }
    }
    for (i, bound) in bindings.iter().enumerate().filter(|(_, bound)| bound.writes) {
        let other = bindings.iter().enumerate().find(|(j, b)| *j != i && b.extent.overlaps(bound.extent));
        if let Some((j, other)) = other {
            return Err(format!(
                "written binding {i} ({}) overlaps binding {j} ({})",
                place(bound),
                place(other)
            ));
        }
    }
    Ok(())
}

fn place<B>(bound: &Bound<B>) -> String {
    format!("{}+{} of buffer '{}'", bound.offset, bound.size(), bound.label)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Test = Planner<&'static str, u32>;

    const FREE: PartLimits = PartLimits { commands: 1000, bytes: u64::MAX };

    fn rules(bindings: usize) -> Rules {
        Rules { bindings: bindings as u32, written: 0, params: 0, max_groups: [100; 3], alignment: 16 }
    }

    fn bound(offset: u64, size: u64, writes: bool) -> Bound<u32> {
        Bound {
            buffer: 0,
            label: "b".into(),
            offset,
            extent: Extent::new(offset, size),
            writes,
            read_only: false,
        }
    }

    fn launch(planner: &mut Test, bindings: Vec<Bound<u32>>) -> Result<(), String> {
        planner.launch("k", "k", &rules(bindings.len()), bindings, &[], [1, 1, 1])
    }

    fn write(planner: &mut Test, offset: u64) {
        launch(planner, vec![bound(offset, 16, true)]).unwrap();
    }

    fn copy(planner: &mut Test, from: u64, to: u64) {
        planner.copy(bound(from, 16, false), bound(to, 16, false)).unwrap();
    }

    fn barriers(plan: &Plan<&'static str, u32>) -> Vec<bool> {
        plan.launches.iter().map(|l| l.barrier).collect()
    }

    #[test]
    fn stages_of_launches_share_a_pass_and_begin_with_a_barrier() {
        let mut planner = Test::new(1, "step");
        planner.barrier();
        write(&mut planner, 0);
        write(&mut planner, 16);
        planner.barrier();
        planner.barrier();
        write(&mut planner, 0);
        write(&mut planner, 16);
        let plan = planner.finish(FREE);
        assert_eq!(plan.parts, [[Pass::Launches(0..4)]]);
        assert_eq!(barriers(&plan), [false, false, true, false]);
    }

    #[test]
    fn copies_of_a_stage_are_one_pass_of_their_own() {
        let mut planner = Test::new(1, "step");
        copy(&mut planner, 0, 32);
        write(&mut planner, 64);
        copy(&mut planner, 16, 48);
        planner.barrier();
        // What was copied is copied on: a pass of its own, because copies of one pass have no order.
        copy(&mut planner, 32, 80);
        planner.barrier();
        write(&mut planner, 80);
        let plan = planner.finish(FREE);
        assert_eq!(
            plan.parts,
            [[Pass::Launches(0..1), Pass::Copies(0..2), Pass::Copies(2..3), Pass::Launches(1..2)]]
        );
        // The change of encoder orders them already.
        assert_eq!(barriers(&plan), [false, false]);
    }

    #[test]
    fn an_empty_plan_is_one_empty_part() {
        let plan = Test::new(1, "nothing").finish(FREE);
        assert_eq!(plan.parts, [Vec::new()]);
        let mut planner = Test::new(1, "no workgroups");
        planner.launch("k", "k", &rules(0), vec![], &[], [4, 0, 1]).unwrap();
        copy_nothing(&mut planner);
        assert_eq!(planner.finish(FREE).parts, [Vec::new()]);
    }

    fn copy_nothing(planner: &mut Test) {
        planner.copy(bound(0, 0, false), bound(64, 0, false)).unwrap();
    }

    #[test]
    fn parts_hold_every_command_once_in_order() {
        for (limit, count) in [(1, 40), (8, 100), (16, 33), (3, 1), (7, 1000)] {
            let mut planner = Test::new(1, "step");
            for step in 0..count {
                match step % 5 {
                    3 => copy(&mut planner, 0, 1 << 20),
                    _ => write(&mut planner, 32 + 16 * step),
                }
                if step % 2 == 1 || step % 5 == 3 {
                    planner.barrier();
                }
            }
            let plan = planner.finish(PartLimits { commands: limit, bytes: u64::MAX });
            let (mut launches, mut copies) = (0, 0);
            for part in &plan.parts {
                let size: usize = part
                    .iter()
                    .map(|pass| match pass {
                        Pass::Launches(r) => {
                            assert_eq!(std::mem::replace(&mut launches, r.end), r.start);
                            r.len()
                        }
                        Pass::Copies(r) => {
                            assert_eq!(std::mem::replace(&mut copies, r.end), r.start);
                            r.len()
                        }
                    })
                    .sum();
                assert!(size > 0, "an empty part: {:?}", plan.parts);
                if plan.parts.len() < MAX_PARTS / 2 {
                    assert!(size <= limit, "{size} commands in a part of at most {limit}");
                }
            }
            assert_eq!((launches, copies), (plan.launches.len(), plan.copies.len()));
            assert!(plan.parts.len() <= MAX_PARTS, "{}", plan.parts.len());
        }
    }

    #[test]
    fn the_first_part_is_small_and_bytes_count() {
        let mut planner = Test::new(1, "step");
        for at in 0..40 {
            write(&mut planner, at * 16);
        }
        let plan = planner.finish(PartLimits { commands: 16, bytes: u64::MAX });
        let sizes: Vec<_> = plan.parts.iter().map(|part| part_size(part)).collect();
        assert_eq!(sizes, [2, 16, 16, 6]);

        let mut planner = Test::new(1, "bytes");
        for at in 0..10 {
            write(&mut planner, at * 16);
        }
        let plan = planner.finish(PartLimits { commands: 1000, bytes: 48 });
        let sizes: Vec<_> = plan.parts.iter().map(|part| part_size(part)).collect();
        assert_eq!(sizes, [3, 3, 3, 1]);
    }

    fn part_size(part: &[Pass]) -> usize {
        part.iter()
            .map(|pass| match pass {
                Pass::Launches(r) | Pass::Copies(r) => r.len(),
            })
            .sum()
    }

    #[test]
    fn hazards_are_refused_by_name_and_leave_no_trace() {
        let mut planner = Test::new(1, "step");
        write(&mut planner, 0);
        let rule = launch(&mut planner, vec![bound(32, 16, false), bound(0, 8, false)]).unwrap_err();
        for part in ["command 1", "binding 1", "0+8 of buffer 'b'", "command 0 (dispatch of 'k')", "barrier"]
        {
            assert!(rule.contains(part), "{part:?} is missing in {rule:?}");
        }
        planner.copy(bound(32, 16, false), bound(8, 16, false)).unwrap_err();
        // The refused launch did not read 32: writing it is no conflict.
        write(&mut planner, 32);
        // Write after read.
        launch(&mut planner, vec![bound(64, 16, false)]).unwrap();
        launch(&mut planner, vec![bound(64, 16, false)]).unwrap();
        launch(&mut planner, vec![bound(64, 16, true)]).unwrap_err();
        planner.barrier();
        launch(&mut planner, vec![bound(0, 8, false), bound(64, 16, true)]).unwrap();
        let plan = planner.finish(FREE);
        assert_eq!(plan.launches.len(), 5);
        assert_eq!(plan.bounds.len(), 6);
    }

    #[test]
    fn launches_are_checked_against_their_shader() {
        let mut planner = Test::new(1, "step");
        let good = Rules { written: 0b10, params: 4, ..rules(2) };
        let mut try_launch = |bindings: Vec<Bound<u32>>, params: &[u8], groups| {
            planner.launch("k", "k", &good, bindings, params, groups)
        };
        let read_only = Bound { read_only: true, ..bound(64, 16, true) };
        let (x, y) = (bound(0, 16, false), bound(16, 16, true));
        for (bindings, params, groups, part) in [
            (vec![x.clone()], 4, [1, 1, 1], "1 bindings; the shader has 2"),
            (vec![x.clone(), y.clone()], 8, [1, 1, 1], "8 bytes of parameters; the shader has 4"),
            (vec![x.clone(), y.clone()], 4, [1, 101, 1], "[1, 101, 1] workgroups"),
            (vec![y.clone(), x.clone()], 4, [1, 1, 1], "binding 1 (buffer 'b'): the shader writes it"),
            (vec![bound(8, 8, false), y.clone()], 4, [1, 1, 1], "offset 8"),
            (vec![bound(16, 32, false), y.clone()], 4, [1, 1, 1], "written binding 1"),
            (vec![x.clone(), read_only], 4, [1, 1, 1], "only read"),
        ] {
            let rule = try_launch(bindings, &vec![0; params], groups).unwrap_err();
            assert!(rule.contains(part), "{part:?} is missing in {rule:?}");
        }
        try_launch(vec![x, y], &[0; 4], [1, 100, 1]).unwrap();
    }

    #[test]
    fn copies_are_checked() {
        let mut planner = Test::new(1, "step");
        let read_only = Bound { read_only: true, ..bound(64, 16, false) };
        for (from, to, part) in [
            (bound(0, 16, false), bound(16, 8, false), "equal"),
            (bound(0, 16, false), bound(8, 16, false), "overlaps"),
            (bound(0, 16, false), read_only, "only read"),
        ] {
            let rule = planner.copy(from, to).unwrap_err();
            assert!(rule.contains(part), "{part:?} is missing in {rule:?}");
        }
    }

    #[test]
    fn the_footprint_is_what_all_stages_use() {
        let mut planner = Test::new(1, "step");
        launch(&mut planner, vec![bound(0, 16, false), bound(32, 16, true)]).unwrap();
        planner.barrier();
        copy(&mut planner, 32, 64);
        let print = planner.finish(FREE).footprint;
        for (start, size, reads, writes) in [
            (0, 16, false, true),
            (16, 16, false, false),
            (40, 1, true, true),
            (79, 1, true, true),
            (80, 9, false, false),
        ] {
            assert_eq!(print.conflicts_with(Extent::new(start, size), false), reads, "{start}");
            assert_eq!(print.conflicts_with(Extent::new(start, size), true), writes, "{start}");
        }
    }
}

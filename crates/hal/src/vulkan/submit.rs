//! Handing work to the GPU.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;

use ash::vk;

use super::core::Core;
use super::ledger::{Entry, Queue};
use crate::monitor::lock;
use crate::{DeviceError, Result};

/// Hands a submission to the GPU, to start when the lanes have come to `points`, and promises what it signals.
pub(crate) fn hand_over(
    core: &Core,
    queue: &mut Queue,
    lane: usize,
    entry: &mut Entry,
    points: [u64; 3],
) -> Result<()> {
    let failed = |result: vk::Result| match core.error("handing work to the GPU", result) {
        lost @ DeviceError::Lost(_) => lost,
        other => DeviceError::Submission { label: entry.list.label.to_string(), reason: other.to_string() },
    };
    let own = &core.lanes[lane];
    let slot = own.take_slot(&core.device, core.clock.as_ref()).map_err(failed)?;
    // SAFETY: the slot was free.
    unsafe { slot.reset(&core.device) };
    let waits = foreign_points(core, lane, &queue.seen, points);
    let point = queue.last_point + 1;
    let commands = [slot.begin, entry.commands, slot.end];
    let submitted = submit(core, lane, &commands, &waits, point);
    if let Err(result) = submitted {
        own.give_slot(slot);
        return Err(failed(result));
    }
    queue.last_point = point;
    for (foreign, value) in waits {
        queue.seen[foreign] = value.max(queue.seen[foreign]);
    }
    entry.slot = Some(slot);
    entry.task.hand_over(point);
    for (event, value) in &entry.signal {
        event.promise(*value, lane, point);
    }
    Ok(())
}

/// What a submission waits for on the other lanes: `points`, and whatever the host knows to have ended, because the host
/// may have ordered the submission after that; the wait makes its writes visible and costs nothing. On its own lane
/// everything earlier comes first anyway.
pub(crate) fn foreign_points(
    core: &Core,
    lane: usize,
    seen: &[u64; 3],
    points: [u64; 3],
) -> Vec<(usize, u64)> {
    (0..core.lanes.len())
        .filter(|&foreign| foreign != lane)
        .map(|foreign| {
            let known = core.lanes[foreign].completed.load(Ordering::Acquire);
            (foreign, known.max(points[foreign]))
        })
        .filter(|&(foreign, value)| value > seen[foreign])
        .collect()
}

/// Submits commands that wait for points of lanes and bring their own lane's timeline to `point`.
pub(crate) fn submit(
    core: &Core,
    lane: usize,
    commands: &[vk::CommandBuffer],
    waits: &[(usize, u64)],
    point: u64,
) -> Result<(), vk::Result> {
    let all = vk::PipelineStageFlags2::ALL_COMMANDS;
    let semaphore = |lane: usize, value: u64| {
        vk::SemaphoreSubmitInfo::default().semaphore(core.lanes[lane].timeline).value(value).stage_mask(all)
    };
    let mut list = [vk::CommandBufferSubmitInfo::default(); 3];
    for (info, &commands) in list.iter_mut().zip(commands) {
        info.command_buffer = commands;
    }
    let mut wait = [vk::SemaphoreSubmitInfo::default(); 3];
    for (info, &(lane, value)) in wait.iter_mut().zip(waits) {
        *info = semaphore(lane, value);
    }
    let signal = [semaphore(lane, point)];
    let info = [vk::SubmitInfo2::default()
        .command_buffer_infos(&list[..commands.len()])
        .wait_semaphore_infos(&wait[..waits.len()])
        .signal_semaphore_infos(&signal)];
    let queue = lock(&core.lanes[lane].queue);
    // SAFETY: the commands are recorded, and whoever submits holds what they use until the timeline reaches `point`; the
    // queue is locked.
    unsafe { core.device.queue_submit2(*queue, &info, vk::Fence::null()) }
}

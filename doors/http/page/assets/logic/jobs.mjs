// What the shelf shows of jobs. Pure.

import { bytes, seconds } from "./words.mjs";

const OVER = new Set(["completed", "failed", "cancelled", "canceled", "expired"]);

export function over(job) {
  return OVER.has(job.status);
}

/** A job in words. */
export function told(job) {
  if (job.status === "completed") {
    const size = job.size_bytes ? `, ${bytes(job.size_bytes)}` : "";
    return `${seconds(job.seconds)}${size}`;
  }
  if (job.status === "failed") return `failed: ${job.error?.message ?? "no reason is known"}`;
  if (job.cancelling) return "is being cancelled";
  if (over(job)) return job.status;
  if (job.frames_done > 0 || job.progress > 0) return `${Math.round(job.progress * 100)} % made`;
  return "waits for a free place";
}

/** What became of jobs since `before`, in one sentence for those who hear the page; empty for nothing. */
export function news(before, after) {
  const known = new Map(before.map((job) => [job.id, job.status]));
  const ended = after.filter((job) => over(job) && known.has(job.id) && known.get(job.id) !== job.status);
  return ended.map((job) => `Video “${job.prompt}” ${job.status === "completed" ? "is finished" : told(job)}.`).join(" ");
}

/** Milliseconds until the shelf should be looked at again; null for not by itself. */
export function lookAgainMs(jobs, hidden) {
  if (hidden) return null;
  return jobs.some((job) => !over(job)) ? 1500 : 20000;
}

import { describe, expect, it } from 'vitest';
import type { Adapter } from './device';
import { failureOf } from './failure';

class GPUOutOfMemoryError extends Error {}
class GPUValidationError extends Error {}

/** A device whose errors a test causes. */
function fake() {
  const events = new EventTarget();
  let lose: (info: object) => void = () => {};
  const lost = new Promise<object>((resolve) => (lose = resolve));
  const device = Object.assign(events, { lost }) as unknown as GPUDevice;
  const failure = failureOf(device, { description: 'Card X' } as Adapter);
  const error = (one: Error) =>
    events.dispatchEvent(Object.assign(new Event('uncapturederror'), { error: one }));
  return { failure, error, lose: (info: object) => (lose(info), lost.then(() => {})) };
}

describe('errors of the GPU', () => {
  it('are none at first', () => {
    expect(() => fake().failure.check()).not.toThrow();
  });
  it('name the adapter that is out of memory, and what to do', () => {
    const { failure, error } = fake();
    error(new GPUOutOfMemoryError('allocation of 5 GB failed\nstack'));
    expect(() => failure.check()).toThrow(
      'webgpu: Card X is out of memory (allocation of 5 GB failed); use a smaller batch',
    );
  });
  it('for lack of memory are thrown once, so that a smaller batch can follow', () => {
    const { failure, error } = fake();
    error(new GPUOutOfMemoryError('allocation of 5 GB failed'));
    expect(() => failure.check()).toThrow('out of memory');
    expect(() => failure.check()).not.toThrow();
    error(new GPUValidationError('another'));
    for (let i = 0; i < 2; i++) expect(() => failure.check()).toThrow('webgpu: Card X: another');
  });
  it('keep the first of several', () => {
    const { failure, error } = fake();
    error(new GPUValidationError('first'));
    error(new GPUValidationError('second'));
    expect(() => failure.check()).toThrow('webgpu: Card X: first');
  });
  it('say that checkpoints are intact when the device was lost', async () => {
    const { failure, lose } = fake();
    await lose({ reason: 'unknown', message: 'the driver was reset' });
    const message = 'the connection to Card X was lost (the driver was reset); saved checkpoints are intact';
    for (let i = 0; i < 2; i++) expect(() => failure.check()).toThrow(message);
  });
  it('are none when the program closes the device itself', async () => {
    const { failure, lose } = fake();
    failure.end();
    await lose({ reason: 'destroyed', message: '' });
    expect(() => failure.check()).not.toThrow();
  });
});

import { describe, expect, test } from 'vitest';
import { newSandboxId, type SandboxId } from '../../../src/base/ids.ts';
import { type StartKind, StartupGate } from '../../../src/sandbox/startup-gate.ts';

const signal = AbortSignal.timeout(10_000);

/** A gate that notes who is inside. */
function watched(atOnce: number) {
  const gate = new StartupGate(atOnce);
  const inside = new Set<SandboxId>();
  const enter = (kind: StartKind, stop = signal): { readonly id: SandboxId; readonly done: Promise<void> } => {
    const id = newSandboxId();
    const done = gate.enter(id, kind, stop).then(() => {
      inside.add(id);
    });
    return { id, done };
  };
  const leave = (id: SandboxId): void => {
    inside.delete(id);
    gate.leave(id);
  };
  /** All that can happen without anybody leaving has happened. */
  const settled = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));
  return { gate, inside, enter, leave, settled };
}

describe('the start-up gate', () => {
  test('lets in so many pods at once, in order, and one only once', async () => {
    const { gate, inside, enter, leave, settled } = watched(2);
    const [a, b, c, d] = [enter('pod'), enter('pod'), enter('pod'), enter('pod')];
    await settled();
    expect([...inside]).toEqual([a.id, b.id]);
    await gate.enter(a.id, 'pod', signal);
    const again = gate.enter(c.id, 'pod', signal);
    leave(a.id);
    await again;
    await settled();
    expect([...inside]).toEqual([b.id, c.id]);
    leave(b.id);
    leave(b.id);
    await d.done;
    expect([...inside]).toEqual([c.id, d.id]);
  });

  test('machines for pools take only what pods leave, and no pod waits for one', async () => {
    const { inside, enter, leave, settled } = watched(2);
    const [one, two, three] = [enter('refill'), enter('refill'), enter('refill')];
    await settled();
    expect([...inside]).toEqual([one.id, two.id]);
    const [pod, other] = [enter('pod'), enter('pod')];
    await Promise.all([pod.done, other.done]);
    leave(one.id);
    leave(two.id);
    await settled();
    expect([...inside]).toEqual([pod.id, other.id]);
    leave(pod.id);
    await three.done;
    expect([...inside]).toEqual([other.id, three.id]);
  });

  test('pods with a machine from a pool do not stand in line with the others', async () => {
    const { enter } = watched(1);
    await enter('pod').done;
    void enter('pod').done.catch(() => undefined);
    await enter('claimed').done;
  });

  test('nothing for a pool begins while a pod takes a machine out of one', async () => {
    const { inside, enter, leave, settled } = watched(2);
    const claimed = enter('claimed');
    await claimed.done;
    const refill = enter('refill');
    await settled();
    expect([...inside]).toEqual([claimed.id]);
    leave(claimed.id);
    await refill.done;
  });

  test('who gives up waiting leaves no gap', async () => {
    const { inside, enter, leave, settled } = watched(1);
    const first = enter('pod');
    const stop = new AbortController();
    const second = enter('pod', stop.signal);
    const third = enter('pod');
    const refill = enter('refill');
    await settled();
    stop.abort();
    await expect(second.done).rejects.toThrow();
    leave(first.id);
    await third.done;
    leave(third.id);
    await refill.done;
    expect([...inside]).toEqual([refill.id]);
  });
});

/** Lets signals, messages and timers run: CPU backends never yield. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => void later(resolve));

/** `setImmediate` is Node's. A browser's timers wait for 4 ms, its messages do not. */
const later = globalThis.setImmediate ?? afterMessage;

function afterMessage(resolve: () => void): void {
  const { port1, port2 } = new MessageChannel();
  const onmessage = () => {
    port1.close();
    resolve();
  };
  Object.assign(port1, { onmessage });
  port2.postMessage(null);
}

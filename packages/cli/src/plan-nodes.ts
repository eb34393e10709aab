/** How `blip2 plan --nodes` prints a run, and captions, on several nodes. */
import { duration, gigabytes } from '@blip2/trainer';
import type { CaptionsPlan, ClusterPlan, NodesPlan } from '@blip2/trainer';
import { paint } from './printable';
import { columns } from './ui';

const HEAD = [
  'nodes',
  'batch',
  'steps',
  'link',
  'step',
  'of it sums',
  'in all',
  'efficiency',
  'node-hours',
  'failures',
];

export function describeCluster({ name, runs, captions, assumed }: ClusterPlan): string {
  return [
    '',
    paint.bold(`${name} on several nodes like this machine`),
    columns([HEAD, ...runs.filter(({ nodes, gbits }) => nodes > 1 || gbits === 1).map(cells)]),
    '',
    'batch: per_device_train_batch_size is the share of one node, so that more nodes take fewer, larger steps; efficiency: speed beside',
    'so many times that of one node; failures: expected, and the node-hours that they cost',
    ...(captions ? describeCaptions(captions) : []),
    paint.dim(
      `assumed: ${100 * assumed.link} % of a link's speed, ${1e6 * assumed.latency} µs for a message, ${1e9 * assumed.sum} ns to add a byte of ` +
        `gradients, steps of a node that vary by ${100 * assumed.spread} %, all weights from one file server with such a link, no overlap`,
    ),
  ].join('\n');
}

function cells(run: NodesPlan): string[] {
  const { nodes, batch, steps, gbits, step, exchange, seconds, efficiency, node_hours, failures } = run;
  return [
    String(nodes),
    String(batch),
    String(steps),
    nodes === 1 ? '–' : `${gbits} Gb/s`,
    time(step),
    nodes === 1 ? '–' : time(exchange),
    duration(seconds),
    `${(100 * efficiency).toFixed(0)} %`,
    hours(node_hours),
    failuresOf(failures),
  ];
}

const time = (seconds: number) =>
  seconds < 1 ? `${(1000 * seconds).toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
const hours = (n: number) => (n < 100 ? n.toFixed(1) : Math.round(n).toLocaleString('en'));
const failuresOf = ({ expected, node_hours }: NodesPlan['failures']) =>
  `${expected < 10 ? expected.toFixed(2) : Math.round(expected).toLocaleString('en')} (${hours(node_hours)} h)`;

function describeCaptions({
  pictures,
  nodes,
  seconds,
  node_hours,
  storage,
  reading,
  failures,
}: CaptionsPlan) {
  return [
    '',
    paint.bold(`captions of ${pictures.toLocaleString('en')} pictures on ${nodes} nodes`),
    `${duration(seconds)}, ${hours(node_hours)} node-hours; failures: ${failuresOf(failures)}`,
    `storage: pictures ${gigabytes(storage.pictures)}, captions ${gigabytes(storage.captions)}, model ${gigabytes(storage.model)}; ` +
      `all nodes read ${gigabytes(reading)} of pictures per second`,
    '',
  ];
}

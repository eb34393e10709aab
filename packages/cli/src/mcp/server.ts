/** The tools that an assistant calls. Each returns JSON as text; lists are cut, so that a result fits into a conversation. */
import { createRequire } from 'node:module';
import type { JobRequest, Workplace } from '@blip2/studio';
import { McpServer } from '@modelcontextprotocol/server';
import type { CallToolResult, ServerContext } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { bounded } from './bounded';
import { runStatus } from './status';
import type { Texts } from './texts';

const ABOUT =
  'Fine-tunes BLIP-2 on captioned pictures or questions with answers, on this machine. Order of work: data_check, plan, fit_start, ' +
  'fit_status until the run has finished, read its verdict, then caption or answer with its name. Paths are relative to the first folder ' +
  'of the server; a path that leads outside of its folders is refused. Rows of a data set may name pictures elsewhere.';

const path = z.string().min(1).max(4096);
const layout = {
  image_folder: path.optional().describe('folder that the names of pictures start from'),
  image_column: z.string().optional().describe('column of the picture, if it has an unusual name'),
  caption_column: z.string().optional(),
  question_column: z.string().optional(),
  answer_column: z.string().optional(),
};
const model = path.describe(
  'folder of a checkpoint in Hugging Face layout, or a Hub name that `blip2 pull` has fetched',
);
const data = path.describe(
  'a data set: a folder of pictures with .txt files, JSON Lines, CSV, COCO, Parquet, tar …',
);
const settings = z
  .record(z.string(), z.union([z.string(), z.number(), z.boolean()]))
  .optional()
  .describe(
    'settings of fit under their names in transformers and PEFT, such as preset (lora, qformer, qformer-projection, lora+qformer, full), ' +
      'num_train_epochs, max_steps, learning_rate, per_device_train_batch_size; what is left open is chosen and listed',
  );
const run = z.string().describe('name of a run in the folder of runs');
const chosen = {
  run: run.optional().describe('name of a finished run: its model and adapter are used'),
  model: model.optional(),
  adapter: path.optional().describe('folder of a PEFT adapter on `model`'),
  images: z.array(path).min(1).max(64).describe('paths of picture files'),
  prompt: z.string().max(2000).optional(),
  max_new_tokens: z.number().int().min(1).max(256).optional(),
  num_beams: z.number().int().min(1).max(8).optional(),
};

export function createMcpServer(workplace: Workplace, texts: Texts): McpServer {
  const { version } = createRequire(import.meta.url)('../package.json') as { version: string };
  const server = new McpServer({ name: 'blip2', version }, { instructions: ABOUT });
  checkTools(server, workplace);
  fitTools(server, workplace);
  textTools(server, texts);
  return server;
}

function checkTools(server: McpServer, workplace: Workplace): void {
  server.registerTool(
    'data_check',
    {
      title: 'Check data',
      description:
        'Reads every text and picture of a data set: counts, lengths, duplicates, leaks between splits, rows that cannot be used.',
      inputSchema: z.object({
        path: data,
        model: model.optional().describe('also count its tokens'),
        ...layout,
      }),
      annotations: { readOnlyHint: true },
    },
    ({ model, ...place }, c) => answer(c, () => asked(c, workplace, { kind: 'check', data: place, model })),
  );
  server.registerTool(
    'plan',
    {
      title: 'Plan a run',
      description:
        'Memory, disk and time of each preset for a model, data and this machine, and which one is recommended. Trains nothing.',
      inputSchema: z.object({
        model,
        data,
        settings,
        memory: z.string().optional().describe('plan for a machine with this memory, such as 16GB'),
      }),
      annotations: { readOnlyHint: true },
    },
    ({ settings, memory, ...named }, c) =>
      answer(c, () => asked(c, workplace, { kind: 'plan', settings: { ...settings, ...named }, memory })),
  );
}

function fitTools(server: McpServer, workplace: Workplace): void {
  server.registerTool(
    'fit_start',
    {
      title: 'Start training',
      description:
        'Starts a run in the background and returns its name at once. It takes all cores for minutes to hours: plan first. The run ends, with a ' +
        'checkpoint, when this server ends.',
      inputSchema: z.object({ name: run.describe('name for the run'), model, data, settings }),
    },
    ({ name, settings, ...named }, c) =>
      answer(c, async () => {
        const made = await workplace.start(name, { ...settings, ...named });
        return { name: made, state: (await workplace.run(made)).state };
      }),
  );
  server.registerTool(
    'fit_status',
    {
      title: 'State of a run',
      description:
        'State, last metrics, sample texts and log of a run, and its verdict once it has finished. Without a name: all runs.',
      inputSchema: z.object({ name: run.optional() }),
      annotations: { readOnlyHint: true },
    },
    ({ name }, c) =>
      answer(c, async () =>
        name === undefined ? { runs: await workplace.list() } : runStatus(name, await workplace.run(name)),
      ),
  );
  const change = (tool: string, title: string, description: string, act: (name: string) => unknown) =>
    server.registerTool(tool, { title, description, inputSchema: z.object({ name: run }) }, ({ name }, c) =>
      answer(c, async () => {
        await act(name);
        return { name, state: (await workplace.run(name)).state };
      }),
    );
  change('fit_stop', 'Stop a run', 'Stops a run after its present step; it saves a checkpoint.', (name) =>
    workplace.stop(name),
  );
  change('fit_resume', 'Continue a run', 'Continues a stopped run from its last checkpoint.', (name) =>
    workplace.resume(name),
  );
}

function textTools(server: McpServer, texts: Texts): void {
  server.registerTool(
    'caption',
    {
      title: 'Caption pictures',
      description:
        'A caption of each picture, with its confidence (0 to 1). The model stays loaded for the next call.',
      inputSchema: z.object(chosen),
      annotations: { readOnlyHint: true },
    },
    (request, c) => answer(c, async () => ({ results: await texts.ask(request, c.mcpReq.signal) })),
  );
  server.registerTool(
    'answer',
    {
      title: 'Answer a question about pictures',
      description: 'The answer to a question about each picture, with its confidence (0 to 1).',
      inputSchema: z.object({ question: z.string().min(1).max(2000), ...chosen }),
      annotations: { readOnlyHint: true },
    },
    (request, c) => answer(c, async () => ({ results: await texts.ask(request, c.mcpReq.signal) })),
  );
}

/** The result of a tool, or its error in words: an assistant can do something about it. */
async function answer(c: ServerContext, work: () => Promise<unknown>): Promise<CallToolResult> {
  try {
    return { content: [{ type: 'text', text: JSON.stringify(bounded(await work()), null, 1) }] };
  } catch (error) {
    c.mcpReq.signal.throwIfAborted();
    const text = (error as Error).message.slice(0, 4000);
    return { isError: true, content: [{ type: 'text', text }] };
  }
}

/** The result of a check or plan. It ends with the request, and its lines are sent as progress, so that a client does not give up. */
async function asked({ mcpReq }: ServerContext, workplace: Workplace, request: JobRequest): Promise<unknown> {
  const { progressToken } = mcpReq._meta ?? {};
  let progress = 0;
  let sent: Promise<unknown> = Promise.resolve();
  const onLine = (message: string) => {
    if (progressToken === undefined) return;
    const params = { progressToken, progress: ++progress, message: message.slice(0, 500) };
    sent = mcpReq.notify({ method: 'notifications/progress', params }).catch(() => undefined);
  };
  const result = await workplace.ask(request, { signal: mcpReq.signal, onLine });
  await sent; // none comes after the result
  return result;
}

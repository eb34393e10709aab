/** The README.md of an adapter folder. */
import type { LoraConfig } from './config';

interface Contents {
  /** Modules with LoRA. */
  modules: readonly string[];
  /** Modules stored whole. */
  whole: readonly string[];
  /** Trained tensors outside modules. */
  bare: readonly string[];
  /** Path of the folder, for the code that loads it. */
  folder: string;
}

/** A string of TypeScript. */
const quote = (text: string) => `'${text.replace(/['\\]/g, '\\$&')}'`;

/** Checked with PEFT 0.6.2: it loads every tensor, and the LoRA that it adds has B = 0. */
const OLD_PEFT =
  'PEFT before 0.12 refuses an adapter without LoRA. For such a version, set `"target_modules": ["fc1"]` in a copy of ' +
  'adapter_config.json: PEFT then adds LoRA that changes no result, because its B is zero.';

/** A model card with the contents of the folder and code to load it. */
export function modelCard(config: LoraConfig, { modules, whole, bare, folder }: Contents): string {
  const base = config.base_model_name_or_path;
  const isHubId = base !== null && /^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith('.');
  const front = [
    '---',
    ...(isHubId ? [`base_model: ${base}`] : []),
    'library_name: peft',
    'tags:',
    '- lora',
    '- blip-2',
    '---',
  ];
  const lines = [
    ...front,
    '',
    '# BLIP-2 adapter',
    '',
    `Base model: ${base ?? 'not recorded'}.`,
    ...(modules.length > 0
      ? [
          `LoRA on ${modules.length} modules, r ${config.r}, alpha ${config.lora_alpha}, dropout ${config.lora_dropout}.`,
        ]
      : []),
    ...(whole.length > 0 ? [`Trained whole: ${whole.join(', ')}.`] : []),
    ...(bare.length > 0 ? [`Trained tensors: ${bare.join(', ')}.`] : []),
    '',
    `The code works where the run was started, or with ${isHubId ? 'the path' : 'the paths'} changed.`,
    '',
    '## Load in Python',
    '',
    '```python',
    'from peft import PeftModel',
    'from transformers import Blip2ForConditionalGeneration',
    '',
    `model = Blip2ForConditionalGeneration.from_pretrained(${JSON.stringify(base ?? 'BASE_MODEL')})`,
    `model = PeftModel.from_pretrained(model, ${JSON.stringify(folder)})`,
    '```',
    ...(modules.length > 0 ? [] : ['', OLD_PEFT]),
    '',
    '## Load in TypeScript',
    '',
    '```ts',
    "import { loadFolder } from '@blip2/blip2/node';",
    "import { useBackend } from '@blip2/nn/node';",
    "import { applyAdapter } from '@blip2/peft-lora';",
    "import { loadAdapter } from '@blip2/peft-lora/node';",
    ...(isHubId ? ["import { resolveModel } from '@blip2/weights/node';"] : []),
    '',
    "await useBackend('auto');",
    `const model = await loadFolder(${isHubId ? `resolveModel(${quote(base)})` : quote(base ?? 'BASE_MODEL')});`,
    `const params = applyAdapter(model.params, await loadAdapter(${quote(folder)}));`,
    'const adapted = { ...model, params }; // for `generate` of @blip2/blip2',
    '```',
  ];
  return `${lines.join('\n')}\n`;
}

/** The README.md of an adapter folder. */
import type { LoraConfig } from './config';

interface Contents {
  /** Modules with LoRA. */
  modules: readonly string[];
  /** Modules stored whole. */
  whole: readonly string[];
  /** Trained tensors outside modules. */
  bare: readonly string[];
}

/** A model card with the contents of the folder and code to load it. */
export function modelCard(config: LoraConfig, { modules, whole, bare }: Contents): string {
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
    '## Load in Python',
    '',
    '```python',
    'from peft import PeftModel',
    'from transformers import Blip2ForConditionalGeneration',
    '',
    `model = Blip2ForConditionalGeneration.from_pretrained(${JSON.stringify(base ?? 'BASE_MODEL')})`,
    'model = PeftModel.from_pretrained(model, "ADAPTER_FOLDER")',
    '```',
    '',
    '## Load in TypeScript',
    '',
    '```ts',
    "import { applyAdapter } from '@blip2/peft-lora';",
    "import { loadAdapter } from '@blip2/peft-lora/node';",
    '',
    "const params = applyAdapter(model.params, await loadAdapter('ADAPTER_FOLDER'));",
    '```',
  ];
  return `${lines.join('\n')}\n`;
}

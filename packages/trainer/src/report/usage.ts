/** How to use the result, and how to repeat the run: commands and code that work in the folder that the run was started in. */
import { questionPrompt } from '@blip2/data-captions';
import { weightOptions } from '../run/weight-options';
import { commandLine } from './command-line';
import type { Html } from './html';
import { html } from './html';
import type { Run } from './run-files';

const QUESTION = 'what is this?';

/**
 * With the prompt that the model was trained with, on a picture of the run, a held-out one if there is any.
 * @param hasExtra the adapter has trained tensors that PEFT does not load (extra_trainables.safetensors)
 */
export function usageSection(
  { config, samples, course }: Run,
  made: 'adapter' | 'model',
  hasExtra: boolean,
): Html {
  const { model, task, prompt, output_dir } = config;
  const path = `${output_dir}/${made}`;
  const { image = 'picture.png', question = QUESTION } = samples[0] ?? course[0] ?? {};
  const ask = task === 'vqa' ? ['answer', image, '--question', question] : ['caption', image];
  const weights = weightOptions(config, made);
  const words = prompt === undefined ? [] : ['--prompt', prompt];
  const load = made === 'adapter' ? peftSnippet(model, path, hasExtra) : transformersSnippet(path);
  const text = task === 'vqa' ? questionPrompt(question, prompt) : prompt;
  return html`<section id="use">
    <h2>Use it</h2>
    <p>On the command line:</p>
    <pre><code>${commandLine(['npx', 'blip2', ...ask, ...weights, ...words])}</code></pre>
    <p>In Python, with transformers${made === 'adapter' && ' and PEFT'}:</p>
    <pre><code>${load}
${generateSnippet(image, text)}</code></pre>
  </section>`;
}

function generateSnippet(image: string, text: string | undefined): string {
  const prompt = text === undefined ? '' : `text=${JSON.stringify(text)}, `;
  return `picture = Image.open(${JSON.stringify(image)}).convert("RGB")
inputs = processor(images=picture, ${prompt}return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=30)[0], skip_special_tokens=True))`;
}

function peftSnippet(model: string, path: string, hasExtra: boolean): string {
  const extra = `from safetensors.torch import load_file
# PEFT does not know this file
extra = load_file(${JSON.stringify(`${path}/extra_trainables.safetensors`)})
base.load_state_dict(extra, strict=False)
`;
  return `from peft import PeftModel
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

processor = Blip2Processor.from_pretrained(${JSON.stringify(model)})
base = Blip2ForConditionalGeneration.from_pretrained(${JSON.stringify(model)})
${hasExtra ? extra : ''}model = PeftModel.from_pretrained(base, ${JSON.stringify(path)}).eval()`;
}

function transformersSnippet(path: string): string {
  return `from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2Processor

processor = Blip2Processor.from_pretrained(${JSON.stringify(path)})
model = Blip2ForConditionalGeneration.from_pretrained(${JSON.stringify(path)}).eval()`;
}

/** Everything that is needed to repeat the run. */
export function detailsSection({ config, configText, environment }: Run): Html {
  const { output_dir } = config;
  const again = ['npx', 'blip2', 'fit', `${output_dir}/config.yaml`, '--output', `${output_dir}-again`];
  const facts = Object.entries(environment).map(
    ([name, value]) =>
      html`<dt>${name}</dt>
        <dd>${typeof value === 'object' ? JSON.stringify(value) : String(value)}</dd>`,
  );
  return html`<section id="repeat">
    <h2>Repeat it</h2>
    <p>The same run in a new folder, with the settings below:</p>
    <pre><code>${commandLine(again)}</code></pre>
    <details>
      <summary>Settings</summary>
      <pre><code>${configText}</code></pre>
    </details>
    ${
      facts.length > 0 &&
      html`<details>
        <summary>Environment</summary>
        <dl class="facts">${facts}</dl>
      </details>`
    }
  </section>`;
}

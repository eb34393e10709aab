// Computes logits in TypeScript; check_adapter.py compares them with PEFT's:
//   npx nx run-many -t build
//   node tools/parity/write-case.mjs BASE_FOLDER ADAPTER_FOLDER DATA CASE.safetensors
// The inputs are the first four examples of DATA (captions of unequal length, right padding), the model is base + adapter.
import { forward, textIds } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import { batches, loadProcessor, openDataset } from '@blip2/data-captions';
import { tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { writeSafetensors } from '@blip2/weights/node';

const [base, adapter, data, out] = process.argv.slice(2);
if (!out) throw new Error('usage: write-case.mjs BASE_FOLDER ADAPTER_FOLDER DATA CASE.safetensors');
await useBackend('auto');
const processor = await loadProcessor(base, textIds(await loadConfig(base)));
const model = await loadFolder(base);
model.params = applyAdapter(model.params, await loadAdapter(adapter));
const dataset = await openDataset(data, { limit: 4 });
const batch = (await batches(dataset, processor, { batch_size: 4, task: 'caption', shuffle: false }).next())
  .value;
const shape = [batch.shape[0], ...batch.imageShape];
const { logits } = forward(model, { pixel_values: tensor(batch.pixel_values, shape) }, batch);
const integers = (name) => ({ name, dtype: 'I64', shape: batch.shape, data: batch[name] });
await writeSafetensors(out, [
  { name: 'pixel_values', dtype: 'F32', shape, data: batch.pixel_values },
  integers('input_ids'),
  integers('attention_mask'),
  { name: 'logits', dtype: 'F32', shape: logits.shape, data: await logits.data() },
]);
console.log(`${out}: logits [${logits.shape}] of base + adapter`);

export { nativeRounding, registerNativeBackend } from './register';
export type { NativeBackendReport } from './register';

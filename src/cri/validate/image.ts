/** ImageSpec: a name that cannot be mistaken for an option, a path or several names. */
import type { ImageSpec__Output } from '../../gen/runtime/v1/ImageSpec.ts';
import { invalid, nonEmpty, required, text } from './fields.ts';

/** Registry, repository, tag and digest at their longest. */
const MAX_REFERENCE = 1024;

/** Returns the reference. What is a correct name beyond this, the image store knows. */
export function checkImageSpec(path: string, spec: ImageSpec__Output | null): string {
  const { image } = required(path, spec);
  nonEmpty(`${path}.image`, image);
  text(`${path}.image`, image, MAX_REFERENCE);
  if (!/^[A-Za-z0-9[]\S*$/.test(image)) {
    invalid(`${path}.image`, `must be an image reference such as "registry/name:tag", is ${JSON.stringify(image)}`);
  }
  return image;
}

/** Images. */
import { done, type Fields, filled, limited, shown, unused } from '../entry.ts';

export const IMAGE: Fields = {
  ImageSpec: {
    image: limited('a reference with tag or digest, or an image id'),
    annotations: shown("of a container's image"),
    user_specified_image: shown(),
    runtime_handler: shown('images are the same for all handlers'),
    image_ref: shown(),
  },
  ListImagesRequest: { filter: done() },
  StreamImagesRequest: { filter: done() },
  ImageFilter: { image: done('a name, a digest or an id') },
  ListImagesResponse: { images: filled() },
  StreamImagesResponse: { images: filled() },
  Image: {
    id: filled("digest of the image's configuration"),
    repo_tags: filled(),
    repo_digests: filled(),
    size: filled('bytes of its blobs, as they are stored (compressed)'),
    uid: filled('when the image names a number'),
    username: filled('when the image names a user by name'),
    spec: filled(),
    pinned: filled('`image.pinned`'),
  },
  ImageStatusRequest: { image: done(), verbose: done() },
  ImageStatusResponse: { image: filled('absent: no such image, as the kubelet expects'), info: filled('with verbose') },
  PullImageRequest: {
    image: done(),
    auth: done(),
    sandbox_config: unused('images belong to the node'),
  },
  AuthConfig: {
    username: done(),
    password: done(),
    auth: done('base64 of user:password'),
    server_address: done("credentials for another registry than the image's are not used"),
    identity_token: done(),
    registry_token: unused(
      'a pull with nothing else is refused: skopeo takes it on its command line only, where every user could read it',
    ),
  },
  PullImageResponse: { image_ref: filled() },
  RemoveImageRequest: { image: done('all its names go; succeeds on the unknown') },
  ImageFsInfoResponse: {
    image_filesystems: filled(),
    container_filesystems: filled('the same one: it tells the kubelet that images and containers are not split'),
  },
  FilesystemUsage: { timestamp: filled(), fs_id: filled(), used_bytes: filled(), inodes_used: filled() },
  FilesystemIdentifier: { mountpoint: filled() },
};
